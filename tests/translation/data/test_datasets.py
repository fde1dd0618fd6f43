# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Pairs and domains as batches: which images come, in what order, and that both of a pair are treated alike."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.data.loader import batch_indices
from ggdr.translation.data.crops import CropConfig
from ggdr.translation.data.datasets import PairedImages, UnpairedImages, domain_pairs, uses_before
from ggdr.translation.data.decode import Side
from ggdr.translation.data.loader import TranslationLoader
from tests.dataset_files import encode
from tests.torch_utils.data.conftest import our_files, png, write

WHOLE = CropConfig(8, enlarge=1.0, flip=False)


def numbered(number: int, size: tuple[int, int] = (8, 8), green: int = 0) -> np.ndarray:
    """Red holds a number, blue the column."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = number, green, np.arange(size[0])
    return pixels


def beside(a: np.ndarray, b: np.ndarray) -> bytes:
    return png(np.concatenate([a, b], axis=1))


def number_of(images: torch.Tensor | np.ndarray) -> list[int]:
    images = np.asarray(images)
    assert (images[:, 0] == images[:, 0, :1, :1]).all()
    return images[:, 0, 0, 0].tolist()


@pytest.fixture
def aligned(tmp_path):
    """Five pairs side by side; B's number is A's + 100."""
    files = {f"train/{i}.png": beside(numbered(i), numbered(100 + i)) for i in range(5)}
    return write(tmp_path / "aligned.zip", files)


@pytest.fixture
def unequal(tmp_path):
    """Seven images of A, three of B, of other sizes."""
    files = {f"trainA/{i}.png": png(numbered(i, (8, 8))) for i in range(7)}
    files |= {f"trainB/{i}.png": png(numbered(100 + i, (13, 9))) for i in range(3)}
    return write(tmp_path / "unequal", files)


@pytest.fixture
def classes(tmp_path):
    """A dataset of this project: class k holds images of the numbers 50 k up, 3 + k of them."""
    labels = [k for k in range(4) for _ in range(3 + k)]
    images = [numbered(50 * k + labels[:i].count(k), (16, 16)) for i, k in enumerate(labels)]
    return write(tmp_path / "classes.zip", our_files(images, labels, classes=["w", "x", "y", "z"]))


def take(n, dataset, crop=WHOLE, batch=2, num_workers=0, **kwargs):
    loader = TranslationLoader(dataset, crop, batch, num_workers=num_workers, **kwargs)
    return list(itertools.islice(loader, n))


def same(a, b):
    return all(x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) for x, y in zip(a, b, strict=True))


# Pairs.


def test_pairs_come_in_the_loader_s_order_and_stay_together(aligned):
    dataset = PairedImages(aligned)
    assert len(dataset) == 5 and dataset.sides == (Side(3), Side(3))
    for k, batch in enumerate(take(6, dataset, seed=3)):
        assert batch.keys() == {"A", "B"} and batch["A"].shape == (2, 3, 8, 8) and batch["A"].dtype == torch.uint8
        expected = batch_indices(2 * k, 2, 5, seed=3).tolist()
        assert number_of(batch["A"]) == expected and number_of(batch["B"]) == [100 + i for i in expected]


def test_the_direction_swaps_a_and_b(aligned, tmp_path):
    forth, back = take(3, PairedImages(aligned)), take(3, PairedImages(aligned, direction="BtoA"))
    assert all(torch.equal(x["A"], y["B"]) and torch.equal(x["B"], y["A"]) for x, y in zip(forth, back, strict=True))
    files = {"A/1.png": png(numbered(1)), "B/1.png": png(numbered(2))}
    folders = write(tmp_path / "two", files)
    (batch,) = take(1, PairedImages(folders, direction="BtoA"), batch=1)
    assert number_of(batch["A"]) == [2] and number_of(batch["B"]) == [1]


@pytest.mark.parametrize("fit", ["stretch", "cover", "none"])
@pytest.mark.parametrize("layout", ["side by side", "two folders"])
def test_both_images_of_a_pair_get_one_crop_and_flip(tmp_path, layout, fit):
    noise = [np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8) for i in range(4)]
    if layout == "two folders":
        files = {f"{side}/{i}.png": png(x) for side in "AB" for i, x in enumerate(noise)}
    else:
        files = {f"{i}.png": beside(x, x) for i, x in enumerate(noise)}
    dataset = PairedImages(write(tmp_path / "set", files))
    batches = take(8, dataset, CropConfig(12, enlarge=1.4, fit=fit))
    assert all(torch.equal(batch["A"], batch["B"]) for batch in batches)
    images = torch.cat([batch["A"] for batch in batches])
    assert len(torch.unique(images, dim=0)) > 12  # each of the four images four times, nearly always another part


def test_label_maps_are_never_interpolated(tmp_path):
    ids = np.random.default_rng(0).choice(np.array([0, 7, 19, 255], np.uint8), (20, 20))
    palette = Image.fromarray(ids, "P")
    palette.putpalette(np.random.default_rng(1).integers(0, 256, 768).tolist())
    files = {"labels/a.png": encode(palette), "images/a.jpg": encode(numbered(9, (20, 20)), "jpeg")}
    dataset = PairedImages(write(tmp_path / "set", files))
    assert dataset.sides == (Side(1, is_labels=True), Side(3))
    crop = CropConfig(16, enlarge=1.6)
    for batch in take(5, dataset, crop, batch=1):
        assert batch["A"].shape == (1, 1, 16, 16) and batch["B"].shape == (1, 3, 16, 16)
        assert set(batch["A"].unique().tolist()) <= {0, 7, 19, 255}
    swapped = PairedImages(tmp_path / "set", direction="BtoA")
    assert swapped.sides == (Side(3), Side(1, is_labels=True))
    assert take(1, swapped, crop, batch=1)[0]["B"].shape == (1, 1, 16, 16)


def test_label_maps_in_colours_keep_their_colours(tmp_path):
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    maps = colours[np.random.default_rng(0).integers(0, 3, (20, 20))]
    path = write(tmp_path / "set", {"a.png": beside(maps, numbered(9, (20, 20)))})
    dataset, crop = PairedImages(path, labels="A"), CropConfig(16, enlarge=1.6)
    assert dataset.sides == (Side(3, is_labels=True), Side(3))
    seen = take(1, dataset, crop, batch=1)[0]["A"].flatten(2)[0].T.unique(dim=0)
    assert {tuple(row) for row in seen.tolist()} == {tuple(row) for row in colours.tolist()}
    blended = take(1, PairedImages(path), crop, batch=1)[0]["A"].flatten(2)[0].T.unique(dim=0)
    assert len(blended) > 3


def test_grey_images_become_rgb_and_the_other_way_round(tmp_path):
    path = write(tmp_path / "set", {"A/a.png": png(np.full((8, 8), 7, np.uint8)), "B/a.png": png(numbered(9))})
    (batch,) = take(1, PairedImages(path), batch=1)
    assert batch["A"].shape == (1, 3, 8, 8) and (batch["A"] == 7).all()
    (batch,) = take(1, PairedImages(path, channels=1), batch=1)
    assert batch["A"].shape == batch["B"].shape == (1, 1, 8, 8) and (batch["A"] == 7).all()


# Domains.


def epochs_of(numbers, n):
    return [numbers[i : i + n] for i in range(0, len(numbers) - n + 1, n)]


def test_domains_of_unequal_numbers_each_have_epochs_of_their_own(unequal):
    dataset = UnpairedImages(unequal)
    assert dataset.names == ["A", "B"] and len(dataset) == 7
    batches = take(21, dataset)
    for key, numbers in (("A", range(7)), ("B", range(100, 103))):
        seen = [k for batch in batches for k in number_of(batch[key])]
        epochs = epochs_of(seen, len(numbers))
        assert all(sorted(epoch) == list(numbers) for epoch in epochs) and len({tuple(e) for e in epochs}) > 3
    assert all(batch["domain_A"].tolist() == [0, 0] and batch["domain_B"].tolist() == [1, 1] for batch in batches)
    assert batches[0]["domain_A"].dtype == torch.int64
    on_device = next(iter(TranslationLoader(dataset, WHOLE, 2, num_workers=0, device="meta")))
    assert {name: x.device.type for name, x in on_device.items()} == {
        "A": "meta", "B": "meta", "domain_A": "cpu", "domain_B": "cpu",
    }  # fmt: skip


def test_the_crops_of_two_domains_are_independent(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    dataset = UnpairedImages(write(tmp_path / "set", {"trainA/1.png": png(noise), "trainB/1.png": png(noise)}))
    batches = take(8, dataset, CropConfig(12, enlarge=1.5))
    equal = [torch.equal(a, b) for batch in batches for a, b in zip(batch["A"], batch["B"], strict=True)]
    assert sum(equal) < 4


def test_each_of_many_domains_goes_through_its_images_and_all_pairs_occur(classes):
    dataset = UnpairedImages(classes)
    assert dataset.names == ["w", "x", "y", "z"] and len(dataset) == 6
    batches = take(600, dataset, CropConfig(16, enlarge=1.0, flip=False))
    seen = {k: [] for k in range(4)}
    pairs = []
    for batch in batches:
        a, b = batch["domain_A"][0].item(), batch["domain_B"][0].item()
        assert a < b and (batch["domain_A"] == a).all() and (batch["domain_B"] == b).all()
        pairs.append((a, b))
        for key, k in (("A", a), ("B", b)):
            numbers = number_of(batch[key])
            assert all(n // 50 == k for n in numbers)
            seen[k] += numbers
    for k, numbers in seen.items():
        assert all(sorted(e) == list(range(50 * k, 50 * k + 3 + k)) for e in epochs_of(numbers, 3 + k))
    counts = {pair: pairs.count(pair) for pair in itertools.combinations(range(4), 2)}
    assert sum(counts.values()) == 600 and all(abs(count - 100) < 35 for count in counts.values()), counts


def test_domains_depend_on_the_step_alone():
    whole = domain_pairs(1000, 100, 5, seed=1)  # a block ends inside
    for step in (1000, 1023, 1024, 1099):
        assert (domain_pairs(step, 1, 5, seed=1)[0] == whole[step - 1000]).all()
    assert not np.array_equal(whole, domain_pairs(1000, 100, 5, seed=2)) and len(domain_pairs(3, 0, 5, 0)) == 0
    assert (np.bincount(domain_pairs(0, 1500, 5, 1).flatten(), minlength=5) == uses_before(1500, 5, 1)).all()
    assert uses_before(0, 5, 1).tolist() == [0] * 5 and uses_before(2049, 2, 1).tolist() == [2049, 2049]
    assert domain_pairs(6, 3, 4, seed=0).tolist() == [[0, 2], [2, 3], [1, 2]]  # in every release


def test_one_domain_can_be_in_every_pair(classes):
    dataset = UnpairedImages(classes, always=2)
    assert dataset.fingerprint() == UnpairedImages(classes).fingerprint()
    found = [job.domains for job in itertools.islice(dataset.jobs(0, 1, 3), 60)]
    assert set(found) == {(0, 2), (1, 2), (2, 3)}
    later = [job.domains for job in itertools.islice(dataset.jobs(20, 1, 3), 40)]
    assert later == found[20:]
    assert uses_before(60, 4, 3, 2).tolist() == [sum(k in pair for pair in found) for k in range(4)]
    with pytest.raises(ValueError, match="always must be a domain from 0 to 3, got 4"):
        UnpairedImages(classes, always=4)


# Resuming, ranks, workers.


@pytest.fixture(params=["aligned", "unequal", "classes"])
def dataset(request):
    path = request.getfixturevalue(request.param)
    return PairedImages(path) if request.param == "aligned" else UnpairedImages(path)


CROP = CropConfig(8, enlarge=1.5)


def test_the_loader_resumes_at_its_position(dataset):
    whole = take(9, dataset, CROP, seed=4)
    loader = TranslationLoader(dataset, CROP, 2, seed=4, num_workers=0)
    assert same(itertools.islice(loader, 4), whole[:4]) and loader.position == 8
    assert same(take(5, dataset, CROP, seed=4, start_position=8), whole[4:])
    assert same(itertools.islice(loader, 5), whole[4:])  # a second iterator goes on as well
    assert not same(take(9, dataset, CROP, seed=5), whole)


def test_ranks_interleave_to_the_global_batch(dataset):
    whole = take(4, dataset, CROP, batch=6)
    ranks = [take(4, dataset, CROP, batch=6, rank=rank, world=3) for rank in range(3)]
    for rank, batches in enumerate(ranks):
        assert same(batches, [{name: x[rank::3] for name, x in batch.items()} for batch in whole])


def test_the_number_of_workers_does_not_matter(dataset):
    assert same(take(4, dataset, CROP, num_workers=2), take(4, dataset, CROP))


def test_the_fingerprint_follows_images_sides_and_split(tmp_path, aligned, unequal):
    prints = {PairedImages(aligned).fingerprint(), PairedImages(aligned, direction="BtoA").fingerprint()}
    prints |= {PairedImages(aligned, labels="B").fingerprint(), UnpairedImages(unequal).fingerprint()}
    assert len(prints) == 4 and UnpairedImages(unequal).fingerprint() in prints
    (unequal / "trainB" / "0.png").write_bytes(png(numbered(55)))
    assert UnpairedImages(unequal).fingerprint() not in prints


def test_single_images_come_uncropped_and_unflipped(aligned, unequal):
    pairs, domains = PairedImages(aligned), UnpairedImages(unequal)
    out = pairs.decoder(WHOLE)(pairs.middles([3, 1]))
    assert number_of(out["A"]) == [3, 1] and number_of(out["B"]) == [103, 101]
    assert (out["A"][0, 2] == np.arange(8)).all()
    out = domains.decoder(WHOLE)(domains.middles((0, 1), [2, 4]))
    assert number_of(out["A"]) == [2, 4] and number_of(out["B"]) == [102, 101]


# What is wrong is named.


def refused(message, path, kind=PairedImages, crop=WHOLE, **kwargs):
    with pytest.raises(DataError, match=message):
        take(8, kind(path, **kwargs), crop)


def test_pairs_of_other_sizes_are_named(tmp_path):
    odd = png(np.zeros((8, 15, 3), np.uint8))
    path = write(tmp_path / "odd", {"1.png": odd})
    refused(r"odd/1.png: is 15x8; two images side by side have an even width together", path)
    path = write(tmp_path / "two", {"A/1.png": png(numbered(1)), "B/1.png": png(numbered(1, (9, 8)))})
    refused(r"two/A/1.png: is 8x8, and \S+two/B/1.png is 9x8; the two images of a pair have one size", path)
    refused(
        "the crop of 16x16",
        write(tmp_path / "x", {"1.png": beside(numbered(1), numbered(2))}),
        crop=CropConfig(16, fit="none"),
    )


@pytest.mark.parametrize("place", ["first", "late"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_sizes_that_change_after_opening_are_named(tmp_path, place, num_workers):
    path = write(tmp_path / "set", {f"{side}/{i}.png": png(numbered(i)) for side in "AB" for i in range(4)})
    dataset = PairedImages(path)
    (path / "B" / ("0.png" if place == "first" else "3.png")).write_bytes(png(numbered(1, (12, 8))))
    with pytest.raises(DataError, match=r"A/\d.png: is 8x8, and \S+B/\d.png is 12x8; the two"):
        take(8, dataset, num_workers=num_workers)


@pytest.mark.parametrize("kind", [PairedImages, UnpairedImages])
def test_unreadable_images_are_named_when_opened_and_when_met(tmp_path, kind):
    files = {f"train{side}/{i}.png": png(numbered(i)) for side in "AB" for i in range(4)}
    path = write(tmp_path / "set", files)
    refused(r"trainB/2.png: cannot be decoded, it is an empty file", write(path, {"trainB/2.png": b""}), kind)
    path = write(tmp_path / "met", files)
    dataset = kind(path)
    (path / "trainB" / "2.png").write_bytes(files["trainB/2.png"][:-30])
    with pytest.raises(DataError, match=r"trainB/2.png: cannot be decoded, the image is corrupt"):
        take(8, dataset)


def test_label_maps_of_another_kind_than_the_first_are_named(tmp_path):
    files = {f"labels/{i}.png": png(np.zeros((8, 8), np.uint8)) for i in range(3)}
    files |= {f"images/{i}.png": png(numbered(i)) for i in range(3)} | {"labels/1.png": png(numbered(1))}
    refused(
        r"labels/1.png: has pixel type 'RGB', expected 8-bit L or P with the number of a class in each pixel",
        write(tmp_path / "set", files),
    )


def test_arguments_that_mean_nothing_are_named(aligned):
    with pytest.raises(ValueError, match="direction must be one of AtoB, BtoA, got 'left'"):
        PairedImages(aligned, direction="left")
    with pytest.raises(ValueError, match="labels must be of A and B, got C"):
        PairedImages(aligned, labels="C")
    with pytest.raises(ValueError, match=r"channels must be one of \(1, 3\), got 4"):
        UnpairedImages(aligned, channels=4)
    with pytest.raises(ValueError, match="batch size 3 is not a multiple of 2 processes"):
        TranslationLoader(PairedImages(aligned), WHOLE, 3, world=2)
