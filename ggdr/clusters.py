# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""K-means on the channel vectors of feature maps, of any network: maps that look like segmentations.

Example:
    >>> with FeatureTap(G, ["synthesis.b16"]) as feats:
    ...     img = G(z)
    >>> clusters = fit_clusters(feats["synthesis.b16"], 6)
    >>> labels = clusters.labels(feats["synthesis.b16"])  # [N, 16, 16], 0 to 5
    >>> picture = label_image(labels[0], size=(256, 256))  # ggdr.label_images

Source: k-means on a generator's activations: Collins et al. 2020, arXiv:2004.14367, Section 3.1; as an argument for
GGDR: Lee et al. 2022, arXiv:2207.13320. Spherical k-means: Dhillon & Modha 2001, "Concept decompositions".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Said here, not after the features have been computed; it loads when it is used, and brings scipy.
if find_spec("sklearn") is None:
    raise ModuleNotFoundError("ggdr.clusters needs scikit-learn: pip install scikit-learn", name="sklearn")

SAMPLE = 2**14  # vectors that starting centres are found on
MINI_BATCH_FROM = 2**13  # vectors from which scikit-learn's mini-batch k-means takes over
SCORED = 2**11  # vectors that a silhouette is computed on
CHUNK_NUMBERS = 2**24  # floats of features at once
MAX_STEPS = 50
SETTLED = 1e-4  # share of pixels that may still move when k-means ends


@dataclass(frozen=True)
class Clusters:
    """Centres of clusters, each with a number that stands for a colour.

    Attributes:
        centers:   [K, C] float32; of length 1 if spherical.
        spherical: nearest by cosine; else by Euclidean distance.
        numbers:   [K] int64, the label of each centre; all different.
    """

    centers: Tensor
    spherical: bool
    numbers: Tensor

    def labels(self, feats: Tensor) -> Tensor:
        """The number of the nearest centre at each pixel: [N, C, H, W] -> [N, H, W] int64, on the same device."""
        found = [self._nearest(part) for part in _chunks(feats)]
        return self.numbers.to(feats.device)[torch.cat(found)].unflatten(1, feats.shape[2:])

    def renumbered(self, mapping: Tensor) -> Clusters:
        """With label i called mapping[i]."""
        return replace(self, numbers=mapping[self.numbers])

    def _nearest(self, part: Tensor) -> Tensor:
        """Which centre is nearest: [n, C, H, W] float32 -> [n, H*W] int64."""
        centers = self.centers.to(part.device)
        scores = centers @ part.flatten(2)  # [n, K, H*W]
        if not self.spherical:
            scores -= centers.square().sum(dim=1)[:, None] / 2
        return scores.argmax(dim=1)


def fit_clusters(feats: Tensor, num: int, *, spherical: bool = True, seed: int = 0) -> Clusters:
    """K-means over the pixels of all images together.

    scikit-learn finds centres on a sample (mini-batch k-means on a large one); Lloyd's steps over all pixels, on the
    device of the features, finish them. Beyond the features, memory stays below 200 MB.

    Args:
        feats:     [N, C, H, W] of any float type.
        num:       clusters, from 1 up.
        spherical: cosine distance, as GGDR's loss; else Euclidean.
        seed:      0 to 2^32 - 1.

    Returns:
        Numbered by size: 0 is the largest cluster.

    Raises:
        ValueError: wrong shape, features that are not finite, or fewer different vectors than clusters.
    """
    lengths = _lengths(feats)
    if not 1 <= num <= lengths.numel():
        raise ValueError(f"expected 1 to {lengths.numel()} clusters, one a pixel, got {num}")
    centers = _starting_centers(_sampled(feats, SAMPLE, spherical, seed), num, seed)
    clusters, sizes = _settled(Clusters(centers.to(feats.device), spherical, torch.arange(num)), feats, lengths)
    order = sizes.argsort(descending=True, stable=True)
    return replace(clusters, centers=clusters.centers[order].cpu())


def continue_clusters(feats: Tensor, labels: Tensor, *, spherical: bool = True) -> Clusters:
    """K-means that goes on from a labelling, such as that of the same latents in another snapshot.

    Args:
        feats:     [N, C, H, W].
        labels:    [N, H, W] int64, of the same pixels.
        spherical: as of `fit_clusters`.

    Returns:
        Clusters with the numbers of the labels that they grew from.

    Raises:
        ValueError: as `fit_clusters`; or a cluster has died out.
    """
    lengths = _lengths(feats)
    numbers, index = labels.to(feats.device).flatten(1).unique(return_inverse=True)
    nothing = torch.zeros([len(numbers), feats.shape[1]], device=feats.device)
    centers = _means(Clusters(nothing, spherical, numbers.cpu()), feats, lengths, index)
    clusters, _ = _settled(Clusters(centers, spherical, numbers.cpu()), feats, lengths)
    return replace(clusters, centers=clusters.centers.cpu())


def choose_number(
    feats: Tensor, candidates: Sequence[int] = range(2, 11), *, spherical: bool = True, seed: int = 0
) -> dict[int, float]:
    """Mean silhouette of k-means for several numbers of clusters; the best number is the one with the highest.

    Args:
        feats:      [N, C, H, W].
        candidates: from 2 up; those with not fewer clusters than vectors are left out.

    Returns:
        Silhouette in [-1, 1] by number of clusters.

    Raises:
        ValueError: as `fit_clusters`, or no candidate is left.

    Source: Rousseeuw 1987, "Silhouettes".
    """
    from sklearn.metrics import pairwise_distances, silhouette_score

    _lengths(feats)
    sample = _sampled(feats, SCORED, spherical, seed)
    distances = pairwise_distances(sample, metric="cosine" if spherical else "euclidean")
    np.fill_diagonal(distances, 0)
    scores = {}
    maps = torch.from_numpy(sample).float().T[None, :, None, :]  # [1, C, 1, n]
    for num in candidates:
        if 2 <= num < len(sample):
            try:
                labels = fit_clusters(maps, num, spherical=spherical, seed=seed).labels(maps).flatten()
            except ValueError:  # fewer different vectors than clusters
                continue
            scores[num] = float(silhouette_score(distances, labels.numpy(), metric="precomputed"))
    if not scores:
        raise ValueError(f"expected features with at least {min(candidates)} different vectors, got fewer")
    return scores


def overlap(labels: Tensor, others: Tensor, num: int | None = None) -> Tensor:
    """How many pixels have label i in one map and j in the other: [num, max(others) + 1] float64.

    Args:
        labels, others: [N, H, W] and [N, h, w] int64, of the same images; the smaller is enlarged to the larger.
        num:            of labels; None: those up to max(labels).
    """
    labels, others = _same_size(labels, others)
    return _members(labels, num).T @ _members(others)


def match_overlap(labels: Tensor, others: Tensor, num: int | None = None) -> Tensor:
    """New numbers for `labels` that agree with `others` on as many pixels as possible; arguments as of `overlap`.

    Returns:
        [num] int64: what to call each label (see `Clusters.renumbered`). Labels without a partner get the lowest
        numbers that nobody has.

    Source: Kuhn 1955, "The Hungarian method for the assignment problem".
    """
    return _assigned(overlap(labels, others, num))


def match_appearance(labels: Tensor, img: Tensor, others: Tensor, other_img: Tensor, num: int | None = None) -> Tensor:
    """As `match_overlap` for maps of different images: clusters pair up by what they look like and where they lie.

    Args:
        labels, others: [N, H, W] and [M, h, w] int64.
        img, other_img: [N, C, ...] and [M, C, ...] float in [-1, 1], the images of these maps.
        num:            of labels; None: those up to max(labels).
    """
    similarity = -torch.cdist(_appearance(labels, img, num), _appearance(others, other_img)).square()
    # Labels that no pixel has come last.
    return _assigned(similarity.nan_to_num(nan=-1e3))


def mutual_information(labels: Tensor, others: Tensor) -> float:
    """Normalised mutual information of two maps of the same images, in [0, 1]; names of labels do not matter.

    Args:
        labels, others: as of `overlap`.

    Source: Strehl & Ghosh 2002, with the arithmetic mean of both entropies as norm.
    """
    from sklearn.metrics import normalized_mutual_info_score

    labels, others = _same_size(labels, others)
    return float(normalized_mutual_info_score(labels.flatten().cpu().numpy(), others.flatten().cpu().numpy()))


def _sampled(feats: Tensor, most: int, spherical: bool, seed: int) -> np.ndarray:
    """At most `most` random channel vectors, [n, C] float64; of length 1 if spherical."""
    n, _, height, width = feats.shape
    count = n * height * width
    rng = np.random.default_rng(seed)
    picks = np.arange(count) if count <= most else np.sort(rng.choice(count, most, replace=False))
    image, pixel = (torch.from_numpy(x).to(feats.device) for x in np.divmod(picks, height * width))
    vectors = feats[image, :, pixel // width, pixel % width].double()
    return (F.normalize(vectors, dim=1) if spherical else vectors).cpu().numpy()


def _lengths(feats: Tensor) -> Tensor:
    """The length of every channel vector, [N, H*W] float32; ValueError if that cannot be."""
    if feats.ndim != 4 or not feats.is_floating_point():
        raise ValueError(f"expected features [N, C, H, W] of floats, got {feats.dtype} {tuple(feats.shape)}")
    lengths = torch.cat([part.square().sum(dim=1).sqrt().flatten(1) for part in _chunks(feats)])
    if not torch.isfinite(lengths).all():
        raise ValueError("the features hold NaN or infinite numbers: the network has diverged")
    return lengths


def _starting_centers(sample: np.ndarray, num: int, seed: int) -> Tensor:
    """scikit-learn's k-means on [n, C]: [num, C] float32."""
    import warnings

    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    kmeans = KMeans(num, n_init=4, random_state=seed)
    if len(sample) >= MINI_BATCH_FROM:
        kmeans = MiniBatchKMeans(num, n_init=4, batch_size=4096, random_state=seed)
    with warnings.catch_warnings():
        # Fewer different vectors than clusters: the caller says so.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return torch.from_numpy(kmeans.fit(sample).cluster_centers_.astype(np.float32))


def _settled(clusters: Clusters, feats: Tensor, lengths: Tensor) -> tuple[Clusters, Tensor]:
    """Lloyd's steps until hardly a pixel moves; the clusters and their sizes, [K].

    `lengths` [N, H*W]: of the vectors. Raises ValueError if a cluster has no pixel.
    """
    previous, moved = None, 1.0
    for _ in range(MAX_STEPS):
        index = torch.cat([clusters._nearest(part) for part in _chunks(feats)])
        moved = 1.0 if previous is None else (index != previous).float().mean().item()
        clusters, previous = replace(clusters, centers=_means(clusters, feats, lengths, index)), index
        if moved <= SETTLED:
            break
    num = len(clusters.centers)
    sizes = index.flatten().bincount(minlength=num)
    if (sizes == 0).any():
        different = int((sizes > 0).sum())
        raise ValueError(f"the features fall into {different} groups of different vectors, got {num} clusters to find")
    return clusters, sizes


def _means(clusters: Clusters, feats: Tensor, lengths: Tensor, index: Tensor) -> Tensor:
    """The mean [K, C] of the vectors of each cluster, by `index` [N, H*W]; its old centre where there are none.

    The mean of directions counts each vector as if it had length 1.
    """
    num = len(clusters.centers)
    sums, sizes, start = torch.zeros_like(clusters.centers), torch.zeros(num, device=feats.device), 0
    for part in _chunks(feats):
        here = slice(start, start + len(part))
        members = F.one_hot(index[here], num).float()  # [n, H*W, K]
        sizes += members.sum(dim=(0, 1))
        if clusters.spherical:
            members /= lengths[here, :, None].clamp_min(1e-12)
        sums += (part.flatten(2) @ members).sum(dim=0).T
        start += len(part)
    means = F.normalize(sums, dim=1) if clusters.spherical else sums / sizes.clamp_min(1)[:, None]
    return torch.where(sizes[:, None] > 0, means, clusters.centers)


def _chunks(feats: Tensor) -> Iterator[Tensor]:
    """Groups of whole images, float32, so that what is computed from them stays small."""
    per_image = max(feats[0].numel(), 1)
    for part in feats.split(max(CHUNK_NUMBERS // per_image, 1)):
        yield part.float()


def _same_size(labels: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """The smaller of two maps enlarged to the size of the larger (nearest neighbour), both on the CPU."""
    if len(labels) != len(others):
        raise ValueError(f"expected maps of the same images, got {len(labels)} and {len(others)}")
    size = max(labels.shape[1:], others.shape[1:])
    return tuple(resized_labels(x.cpu(), size) for x in (labels, others))


def resized_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """[N, H, W] int64 -> [N, *size] int64, nearest neighbour."""
    if labels.shape[1:] == tuple(size):
        return labels
    return F.interpolate(labels[:, None].double(), size=tuple(size), mode="nearest-exact")[:, 0].long()


def _assigned(similarity: Tensor) -> Tensor:
    """New numbers [I] of the rows of [I, J] that make the sum of similarity[row, new number] largest."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(similarity.numpy(), maximize=True)
    mapping = torch.full([len(similarity)], -1)
    mapping[torch.from_numpy(rows)] = torch.from_numpy(columns)
    free = (number for number in range(sum(similarity.shape)) if number not in set(columns))
    for row in range(len(mapping)):
        if mapping[row] < 0:
            mapping[row] = next(free)
    return mapping


def _appearance(labels: Tensor, img: Tensor, num: int | None = None) -> Tensor:
    """Mean colour, distance from the middle column and row of each label, [num, 5] float64; NaN without pixels.

    All lie in [-1, 1] or [0, 1], so that their differences compare.
    """
    height, width = labels.shape[1:]
    small = F.interpolate(img[:, :3].cpu().float(), size=(height, width), mode="area").expand(-1, 3, -1, -1)
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    place = torch.stack([x.abs(), y]).expand(len(labels), -1, -1, -1)
    looks = torch.cat([small, place], dim=1).permute(0, 2, 3, 1).reshape(-1, 5).double()
    members = _members(labels, num)
    return (members.T @ looks) / members.sum(dim=0)[:, None]


def _members(labels: Tensor, num: int | None = None) -> Tensor:
    """Which pixel has which label, [pixels, num] float64 of 0 and 1."""
    return F.one_hot(labels.cpu().flatten(), -1 if num is None else num).double()
