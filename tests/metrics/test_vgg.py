# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""VGG16 and LPIPS against torchvision's network and the package of LPIPS, with the same random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ggdr.metrics import vgg
from ggdr.metrics.lpips import LPIPS, load_lpips
from ggdr.metrics.vgg import VGG16, load_vgg16, shapes_of
from ggdr.torch_utils.downloads import WeightsError
from ggdr.torch_utils.float32 import exact_float32
from tests.references import import_or_skip

SMALL_FC = 48  # the published 4096 would take half a gigabyte


def random_tensors(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Tensors that keep the signal's size from layer to layer."""
    rng = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}
    return {n: t * 0.1 if n.endswith("bias") else t * (2 / t[0].numel()) ** 0.5 for n, t in tensors.items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A file like torchvision's, with small fully connected layers."""
    with torch.device("meta"):
        shapes = shapes_of(VGG16())
    small = {"0.weight": (SMALL_FC, 512 * 49), "0.bias": (SMALL_FC,), "3.weight": (SMALL_FC, SMALL_FC)}
    small |= {"3.bias": (SMALL_FC,), "6.weight": (10, SMALL_FC), "6.bias": (10,)}
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(random_tensors(shapes | {f"classifier.{name}": shape for name, shape in small.items()}), path)
    return path


@pytest.fixture(scope="module")
def linear(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("lpips") / "linear.pth"
    widths = enumerate((64, 128, 256, 512, 512))
    torch.save({f"lin{i}.model.1.weight": torch.linspace(0, 1, c).reshape(1, c, 1, 1) for i, c in widths}, path)
    return path


@pytest.fixture
def small_fc(monkeypatch):
    monkeypatch.setattr(vgg, "FC_DIM", SMALL_FC)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def assert_same(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert actual.shape == expected.shape and actual.dtype == torch.float32
    error = (actual - expected).abs().max() / expected.square().mean().sqrt()
    assert error < tolerance, f"error {error:.1e} of the root mean square"


def torchvisions_vgg16(weights: Path) -> nn.Module:
    models = import_or_skip("torchvision.models")
    with torch.device("meta"):
        net = models.vgg16()
        for number, layer in {0: (512 * 49, SMALL_FC), 3: (SMALL_FC, SMALL_FC), 6: (SMALL_FC, 10)}.items():
            net.classifier[number] = nn.Linear(*layer)
    net.load_state_dict(torch.load(weights), assign=True)
    return net.eval().requires_grad_(False)


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize("size", [(40, 56), (300, 224)], ids=["up", "down"])
def test_features_are_torchvisions_of_images_that_pillow_resized(weights, small_fc, size):
    def resize(channel: np.ndarray) -> np.ndarray:
        image = Image.fromarray(channel.astype(np.float32), mode="F")
        return np.asarray(image.resize((224, 224), resample=Image.Resampling.BILINEAR))

    images_u8 = ((noise(1, 3, *size) + 1) * 127).to(torch.uint8)
    x = torch.from_numpy(np.array([[resize(channel) for channel in image] for image in images_u8.numpy()])) / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    theirs = torchvisions_vgg16(weights)
    expected = theirs.classifier[:5](theirs.avgpool(theirs.features(x)).flatten(1)).relu()
    assert_same(load_vgg16(weights).features_fc2(images_u8), expected, 1e-4)


def test_names_and_shapes_are_torchvisions():
    models = import_or_skip("torchvision.models")
    with torch.device("meta"):
        ours, theirs = shapes_of(VGG16()), shapes_of(models.vgg16())
    assert ours == {name: shape for name, shape in theirs.items() if not name.startswith("classifier.6")}


def test_feature_maps_are_torchvisions(weights, linear, ops):
    theirs = torchvisions_vgg16(weights).features
    x, expected = noise(2, 3, 64, 48), []
    out = x
    for i, layer in enumerate(theirs[:30]):
        out = layer(out)
        if i in (3, 8, 15, 22, 29):
            expected.append(out.clone())
    for ours, published in zip(load_lpips(weights, linear).features(x), expected, strict=True):
        assert_same(ours, published, 5e-5)


@pytest.mark.filterwarnings("ignore::UserWarning:torchvision")
@pytest.mark.parametrize("size", [(64, 48), (33, 70)], ids=["even", "odd"])
def test_distances_are_those_of_the_lpips_package(weights, size):
    package = import_or_skip("lpips")
    linear = Path(package.__file__).parent / "weights" / "v0.1" / "vgg.pth"
    theirs = package.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    state = torch.load(weights)
    net = theirs.net
    for part in (net.slice1, net.slice2, net.slice3, net.slice4, net.slice5):
        part.load_state_dict({name: state[f"features.{name}"] for name in part.state_dict()})
    img0, img1 = noise(2, 3, *size), noise(2, 3, *size, seed=1)
    assert_same(load_lpips(weights, linear)(img0, img1), theirs(img0, img1).flatten())


def test_a_distance_is_symmetric_and_zero_only_from_an_image_to_itself(weights, linear):
    net = load_lpips(weights, linear)
    img0, img1 = noise(2, 3, 32, 32), noise(2, 3, 32, 32, seed=1)
    assert torch.equal(net(img0, img0), torch.zeros(2))
    assert_same(net(img0, img1), net(img1, img0), 1e-6)
    assert (net(img0, img1) > 0.01).all()


def test_a_small_change_of_an_image_is_a_small_distance(weights, linear):
    img0, img1 = noise(1, 3, 32, 32), noise(1, 3, 32, 32, seed=1)
    near, far = (load_lpips(weights, linear)(img0, img0.lerp(img1, part)) for part in (0.01, 0.5))
    assert 0 < near < far / 100


def test_a_file_without_convolutions_is_refused(tmp_path, weights, linear):
    state = {name: tensor for name, tensor in torch.load(weights).items() if not name.startswith("features.0")}
    torch.save(state, tmp_path / "cut.pth")
    for load in (lambda path: load_vgg16(path), lambda path: load_lpips(path, linear)):
        with pytest.raises(WeightsError, match=r"cut\.pth: not VGG16; tensors missing: features\.0\.weight, features"):
            load(tmp_path / "cut.pth")


def test_other_linear_layers_are_refused(weights):
    with pytest.raises(WeightsError, match=r"not the linear layers of LPIPS .* missing: lin0\.model\.1\.weight"):
        load_lpips(weights, weights)


def test_loaded_networks_take_no_gradient(weights, linear, small_fc):
    for net in (load_vgg16(weights), load_lpips(weights, linear)):
        assert not net.training and not any(tensor.requires_grad for tensor in net.parameters())


@pytest.mark.parametrize(
    "img0, img1, reason",
    [
        (torch.zeros(2, 3, 32, 32), torch.zeros(1, 3, 32, 32), r"got \[2, 3, 32, 32\] and \[1, 3, 32, 32\]"),
        (torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32), r"must be \[N, 3, H, W\]"),
        (torch.zeros(1, 3, 8, 32), torch.zeros(1, 3, 8, 32), "at least 16x16"),
        (torch.zeros(1, 3, 32, 32).byte(), torch.zeros(1, 3, 32, 32).byte(), r"float32 in \[-1, 1\], got torch.uint8"),
    ],
    ids=["numbers", "grey", "tiny", "bytes"],
)
def test_pairs_that_do_not_fit_are_refused(img0, img1, reason):
    with torch.device("meta"):
        net = LPIPS()
    with pytest.raises(ValueError, match=reason):
        net(img0, img1)


def test_images_of_another_type_are_refused():
    with torch.device("meta"):
        net = VGG16()
    with pytest.raises(ValueError, match=r"images must be uint8 \[N, 3, H, W\], got torch.float32"):
        net.features_fc2(torch.zeros(1, 3, 32, 32))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_features_and_distances(weights, linear, small_fc):
    images_u8 = ((noise(2, 3, 40, 56) + 1) * 127).to(torch.uint8)
    img0, img1 = noise(2, 3, 64, 48), noise(2, 3, 64, 48, seed=1)
    with exact_float32(torch.device("cuda")):
        features = load_vgg16(weights, "cuda").features_fc2(images_u8.cuda())
        distances = load_lpips(weights, linear, "cuda")(img0.cuda(), img1.cuda())
    assert_same(features.cpu(), load_vgg16(weights).features_fc2(images_u8))
    assert_same(distances.cpu(), load_lpips(weights, linear)(img0, img1))
