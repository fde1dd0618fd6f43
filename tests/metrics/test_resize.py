# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Each mode's images for the Inception network against those of the tool that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ggdr.metrics.resize import MODES, prepare
from tests.references import import_or_skip

SIZES = [(32, 32), (64, 48), (33, 301), (299, 299), (299, 17), (512, 400), (1, 5)]


def pictures(height: int, width: int, *, num: int = 2) -> torch.Tensor:
    """Noise, so that any pixel that is a little elsewhere shows; uint8 [num, 3, height, width]."""
    rng = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randint(0, 256, [num, 3, height, width], generator=rng, dtype=torch.uint8)


def by_torch_fidelity(images_u8: torch.Tensor) -> torch.Tensor:
    import_or_skip("torch_fidelity")
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    return (interpolate_bilinear_2d_like_tensorflow1x(images_u8.float(), (299, 299), align_corners=False) - 128) / 128


def by_pytorch_fid(images_u8: torch.Tensor) -> torch.Tensor:
    return 2 * F.interpolate(images_u8 / 255, size=(299, 299), mode="bilinear", align_corners=False) - 1


def by_clean_fid(images_u8: torch.Tensor) -> torch.Tensor:
    def resize(channel: np.ndarray) -> np.ndarray:
        image = Image.fromarray(channel.astype(np.float32), mode="F")
        return np.asarray(image.resize((299, 299), resample=Image.Resampling.BICUBIC)).clip(0, 255)

    pixels = [[resize(channel) for channel in image] for image in images_u8.numpy()]
    return (torch.from_numpy(np.array(pixels)) - 128) / 128


TOOLS = {
    "stylegan": by_torch_fidelity,
    "torch-fidelity": by_torch_fidelity,
    "pytorch-fid": by_pytorch_fid,
    "clean": by_clean_fid,
}


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_images_are_those_of_the_tool(name, size):
    images_u8 = pictures(*size)
    ours, theirs = prepare(images_u8, MODES[name]), TOOLS[name](images_u8)
    assert ours.shape == (2, 3, 299, 299) and ours.dtype == torch.float32
    assert (ours - theirs).abs().max() < 1e-6


@pytest.mark.parametrize("name", MODES)
def test_images_of_the_networks_size_keep_their_pixels(name):
    images_u8 = pictures(299, 299)
    x = prepare(images_u8, MODES[name])
    pixels = x * 128 + 128 if name != "pytorch-fid" else (x + 1) * 127.5
    assert torch.equal(pixels.round().to(torch.uint8), images_u8)


def test_the_three_filters_give_different_images():
    images_u8 = pictures(64, 48)
    stylegan, torch_fidelity, pytorch_fid, clean = (prepare(images_u8, mode) for mode in MODES.values())
    assert torch.equal(stylegan, torch_fidelity)
    for a, b in ((stylegan, pytorch_fid), (stylegan, clean), (pytorch_fid, clean)):
        assert (a - b).abs().mean() > 0.01


def test_the_top_left_pixel_stays_in_the_corner_in_tensorflows_filter_only():
    images_u8 = torch.zeros(1, 3, 600, 600, dtype=torch.uint8)
    images_u8[:, :, 0, 0] = 255
    corner = {name: prepare(images_u8, mode)[0, 0, 0, 0].item() for name, mode in MODES.items()}
    assert corner["stylegan"] == corner["torch-fidelity"] == 127 / 128
    assert corner["pytorch-fid"] < 0 and corner["clean"] < 0


def test_rows_are_not_taken_for_columns():
    images_u8 = pictures(40, 70)
    for mode in MODES.values():
        turned = prepare(images_u8.transpose(2, 3), mode).transpose(2, 3)
        assert (turned - prepare(images_u8, mode)).abs().max() < 1e-5


@pytest.mark.parametrize("name", MODES)
def test_an_image_does_not_depend_on_the_others_of_its_batch(name):
    images_u8 = pictures(50, 36, num=5)
    together = prepare(images_u8, MODES[name])
    assert torch.equal(together, torch.cat([prepare(image[None], MODES[name]) for image in images_u8]))
    assert torch.equal(together, prepare(images_u8.contiguous(memory_format=torch.channels_last), MODES[name]))


def test_only_the_official_mode_divides_covariances_by_the_number_of_images():
    assert {name: mode.ddof for name, mode in MODES.items() if mode.ddof != 1} == {"stylegan": 0}
    assert all(name == mode.name for name, mode in MODES.items())


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 3, 8, 8),
        torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
        torch.zeros(3, 8, 8, dtype=torch.uint8),
        torch.zeros(2, 3, 0, 8, dtype=torch.uint8),
    ],
    ids=["float", "grey", "one image", "no pixels"],
)
def test_other_tensors_are_refused(images):
    with pytest.raises(ValueError, match=r"images must be uint8 \[N, 3, H, W\], got"):
        prepare(images, MODES["stylegan"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", MODES)
def test_a_gpu_makes_the_same_images(name):
    images_u8 = pictures(64, 48)
    assert (prepare(images_u8.cuda(), MODES[name]).cpu() - prepare(images_u8, MODES[name])).abs().max() < 1e-5
