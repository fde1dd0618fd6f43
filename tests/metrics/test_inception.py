# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Our Inception network against those of other tools, with the same random weights, from the image to the features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ggdr.metrics.inception import InceptionV3, load_inception
from ggdr.metrics.resize import MODES, prepare
from ggdr.torch_utils import float32
from ggdr.torch_utils.downloads import WeightsError
from ggdr.torch_utils.float32 import exact_float32
from ggdr.torch_utils.timing.flops import count_flops
from tests.references import import_or_skip

TOLERANCE = 1e-5  # of the root mean square of all features; those of two modes differ by a thousand times as much


def random_state(seed: int = 0) -> dict[str, Tensor]:
    """Tensors of the published names and shapes that keep the signal's size from layer to layer."""
    rng = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in InceptionV3().shapes().items():
        values = torch.randn(shape, generator=rng)
        if name.endswith(("bn.weight", "running_var")):
            values = 0.75 + torch.rand(shape, generator=rng) / 2
        elif name.endswith((".bias", "running_mean")):
            values *= 0.1
        else:
            values *= (2 / values[0].numel()) ** 0.5
        state[name] = values
    return state


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save(random_state(), path)
    return path


@pytest.fixture(scope="module")
def net(weights) -> InceptionV3:
    return load_inception(weights)


@pytest.fixture(scope="module")
def torch_fidelity(weights):
    import_or_skip("torch_fidelity")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    return FeatureExtractorInceptionV3("theirs", ["2048", "logits_unbiased"], feature_extractor_weights_path=weights)


@pytest.fixture(scope="module")
def images_u8() -> Tensor:
    """Two images of 40x56 with coarse and fine detail."""
    rng = torch.Generator().manual_seed(1)
    coarse = torch.nn.functional.interpolate(torch.randn(2, 3, 5, 7, generator=rng), (40, 56), mode="bilinear")
    return ((coarse + 0.3 * torch.randn(2, 3, 40, 56, generator=rng)) * 60 + 128).clamp(0, 255).to(torch.uint8)


def assert_same(actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    assert actual.shape == expected.shape and actual.dtype == torch.float32
    error = (actual - expected).abs().max() / expected.square().mean().sqrt()
    assert error < tolerance, f"error {error:.1e} of the root mean square"


@pytest.mark.parametrize("mode", ["stylegan", "torch-fidelity"])
def test_features_and_logits_are_those_of_torch_fidelity(net, torch_fidelity, images_u8, mode, ops):
    pool, logits = net(prepare(images_u8, MODES[mode]))
    theirs = torch_fidelity(images_u8)
    assert_same(pool, theirs[0])
    assert_same(logits, theirs[1])


def test_features_are_those_of_pytorch_fid(net, weights, images_u8, monkeypatch):
    module = import_or_skip("pytorch_fid.inception")
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda url, **settings: torch.load(weights))
    (theirs,) = module.InceptionV3().eval()(images_u8 / 255)
    assert_same(net(prepare(images_u8, MODES["pytorch-fid"])).pool, theirs[:, :, 0, 0])


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_features_are_those_of_clean_fid(net, torch_fidelity, images_u8, monkeypatch):
    def resize(channel: np.ndarray) -> np.ndarray:
        image = Image.fromarray(channel.astype(np.float32), mode="F")
        return np.asarray(image.resize((299, 299), resample=Image.Resampling.BICUBIC)).clip(0, 255)

    resized = torch.from_numpy(np.array([[resize(channel) for channel in image] for image in images_u8.numpy()]))
    name = "torch_fidelity.feature_extractor_inceptionv3.interpolate_bilinear_2d_like_tensorflow1x"
    monkeypatch.setattr(name, lambda x, **settings: resized)
    assert_same(net(prepare(images_u8, MODES["clean"])).pool, torch_fidelity(images_u8)[0])


def test_features_of_the_modes_differ_by_far_more_than_rounding(net, images_u8):
    stylegan, _, pytorch_fid, clean = (net(prepare(images_u8, mode)).pool for mode in MODES.values())
    for a, b in ((stylegan, pytorch_fid), (stylegan, clean), (pytorch_fid, clean)):
        with pytest.raises(AssertionError):
            assert_same(a, b, 1000 * TOLERANCE)


def test_names_and_shapes_are_the_published_ones(torch_fidelity):
    theirs = {name: tuple(tensor.shape) for name, tensor in torch_fidelity.state_dict().items()}
    assert InceptionV3().shapes() == {name: shape for name, shape in theirs.items() if "num_batches" not in name}


def test_an_image_does_not_depend_on_the_others_of_its_batch(net, images_u8):
    x = prepare(images_u8.repeat(2, 1, 1, 1), MODES["stylegan"])
    assert_same(net(x).pool, torch.cat([net(image[None]).pool for image in x]), 2e-6)


def test_the_memory_format_does_not_matter(net, images_u8):
    x = prepare(images_u8, MODES["stylegan"])
    assert torch.equal(net(x).pool, net(x.contiguous(memory_format=torch.channels_last)).pool)


@pytest.mark.parametrize("per_operation", sorted({float32.PER_OPERATION, False}), ids="per operation {}".format)
def test_settings_of_a_training_do_not_matter_and_are_left_as_they_are(net, images_u8, monkeypatch, per_operation):
    monkeypatch.setattr(float32, "PER_OPERATION", per_operation)
    x = prepare(images_u8, MODES["stylegan"])
    expected = net(x)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = net(x)
            with exact_float32(x.device):
                features = net(x)
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(precision)
    assert torch.equal(features.pool, expected.pool) and torch.equal(features.logits, expected.logits)
    with pytest.raises(AssertionError):
        assert_same(rough.pool.float(), expected.pool, 100 * TOLERANCE)


def test_the_arithmetic_is_the_published_networks():
    with torch.device("meta"):
        net = InceptionV3()
    # 5.71 G multiply-adds; torchvision counts 5.71 for its variant, with a smaller last layer.
    assert count_flops(lambda: net(torch.empty(1, 3, 299, 299, device="meta"))) / 2e9 == pytest.approx(5.71, abs=0.01)


# Loading.


def test_counts_of_batches_may_be_in_the_file(weights, net, tmp_path):
    state = torch.load(weights)
    norms = [name for name in state if name.endswith(".running_var")]
    state |= {name.replace("running_var", "num_batches_tracked"): torch.tensor(0) for name in norms}
    torch.save(state, tmp_path / "counts.pth")
    loaded = load_inception(tmp_path / "counts.pth").state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in net.state_dict().items())


def test_the_network_of_torchvision_is_refused(weights, tmp_path):
    state = torch.load(weights)
    state |= {
        "fc.weight": torch.zeros(1000, 2048),
        "fc.bias": torch.zeros(1000),
        "AuxLogits.fc.bias": torch.zeros(1000),
    }
    torch.save(state, tmp_path / "torchvision.pth")
    reason = r"torchvision\.pth: not the Inception network of the FID; tensors unexpected: AuxLogits\.fc\.bias; "
    with pytest.raises(WeightsError, match=reason + r"of another shape: fc\.weight \[1000, 2048\] instead of"):
        load_inception(tmp_path / "torchvision.pth")


def test_a_loaded_network_takes_no_gradient(net):
    assert not net.training and not any(tensor.requires_grad for tensor in net.state_dict().values())


@pytest.mark.parametrize("x", [torch.zeros(1, 3, 224, 224), torch.zeros(1, 3, 299, 299, dtype=torch.uint8)])
def test_unprepared_images_are_refused(net, x):
    with pytest.raises(ValueError, match=r"expected float32 \[N, 3, 299, 299\], got"):
        net(x)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_features(weights, net, images_u8):
    x = prepare(images_u8, MODES["stylegan"])
    with exact_float32(torch.device("cuda")):
        pool, logits = load_inception(weights, "cuda")(x.cuda())
    assert_same(pool.cpu(), net(x).pool)
    assert_same(logits.cpu(), net(x).logits)
