# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""`ggdr clusters --export-masks`: images and masks that this project and COCO's tools read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ggdr.torch_utils.data.dataset import ImageDataset
from tests.conftest import ggdr
from tests.tiny import save_tiny, tiny_generator
from tests.torch_utils.data.test_coco import decoded


@pytest.fixture
def export(tmp_path):
    """Runs the command on tiny networks, writing masks to a place of this name."""

    def run(name: str, *options: object, code: int = 0, **about) -> str:
        network = save_tiny(tmp_path / "net.safetensors", tiny_generator(res=16, **about))
        args = ["--seeds", "0-2,1", "--clusters", "3", "--outdir", tmp_path / "out", "--device", "cpu"]
        return ggdr("clusters", "--network", network, *args, "--export-masks", tmp_path / name, *options, code=code)

    return run


def test_masks_are_a_dataset_of_the_largest_layer(export, tmp_path):
    printed = export("masks")
    assert f"3 images with masks of 3 clusters of the 16x16 features written to {tmp_path / 'masks'}" in printed
    ggdr("dataset", tmp_path / "masks", tmp_path / "masks.zip")
    dataset = ImageDataset(tmp_path / "masks.zip", use_label_maps=True)
    assert dataset.label_classes.names == ("cluster 0", "cluster 1", "cluster 2") and len(dataset) == 3
    with np.load(tmp_path / "out" / "labels.npz") as arrays:
        assert (dataset.label_maps(range(3))[:, 0] == arrays["generator_16x16"][:3]).all()
    ggdr("generate", "--network", tmp_path / "net.safetensors", "--seeds", "1", "--outdir", tmp_path, "--device", "cpu")
    made = next(tmp_path.glob("*seed*.png"))
    with Image.open(made) as theirs, Image.open(tmp_path / "masks" / "images" / "seed_1.png") as ours:
        assert (np.asarray(theirs) == np.asarray(ours)).all()


def test_coco_annotations_are_the_masks(export, tmp_path):
    printed = export("masks", "--layers", "8")
    assert "of the 8x8 features" in printed
    about = json.loads((tmp_path / "masks" / "coco.json").read_text())
    files = {image["id"]: image["file_name"] for image in about["images"]}
    assert sorted(files.values()) == ["seed_0.png", "seed_1.png", "seed_2.png"]
    shown = {name: np.full([16, 16], 255, np.uint8) for name in files.values()}
    for annotation in about["annotations"]:
        mask = decoded(annotation["segmentation"]["counts"], 16, 16)
        assert mask.sum() == annotation["area"]
        shown[files[annotation["image_id"]]][mask] = annotation["category_id"] - 1
    for name, found in shown.items():
        with Image.open(tmp_path / "masks" / "labels" / name) as label_map:
            assert label_map.mode == "P" and (np.asarray(label_map) == found).all()
            assert (found == found[::2, ::2].repeat(2, 0).repeat(2, 1)).all()


@pytest.mark.parametrize("channels", [1, 4])
def test_a_zip_of_grey_or_transparent_images_is_a_dataset_too(export, tmp_path, channels):
    export("masks.zip", img_channels=channels)
    dataset = ImageDataset(tmp_path / "masks.zip", use_label_maps=True)
    assert dataset.num_channels == channels and dataset.label_maps([0]).max() <= 2


def test_places_and_networks_that_do_not_fit_are_named(export, tmp_path):
    (tmp_path / "taken").mkdir()
    assert f"'--export-masks': {tmp_path / 'taken'} exists already" in export("taken", code=2)
    other = save_tiny(tmp_path / "other.safetensors", tiny_generator(res=16))
    assert "expected one --network, got 2" in export("masks", "--network", other, code=2)
    assert not (tmp_path / "masks").exists() and not (tmp_path / "out").exists()
