# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Datasets: the pixels and labels of their files, and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ggdr.torch_utils.data.dataset import ImageDataset
from ggdr.torch_utils.data.image_files import DataError
from tests.torch_utils.data.conftest import CLASSES, IMAGES, name_of, our_files, png, write


def test_dataset_gives_the_pixels_and_labels_of_its_files(path):
    dataset = ImageDataset(path, use_labels=True)
    assert (dataset.name, dataset.num_images, len(dataset)) == ("set", 10, 10)
    assert (dataset.resolution, dataset.num_channels, dataset.c_dim) == (16, 3, 3)
    assert dataset.classes == ["ant", "bee", "cat"] and dataset.label_counts.tolist() == [4, 3, 3]
    for i in range(10):
        img, label = dataset[i]
        assert img.dtype == np.uint8 and (img == IMAGES[i].transpose(2, 0, 1)).all()
        assert label.dtype == np.float32 and (label == np.eye(3)[CLASSES[i]]).all()
    for index in (-1, 10):
        with pytest.raises(IndexError):
            dataset[index]


def test_labels_have_length_zero_unless_asked_for(path):
    dataset = ImageDataset(path)
    assert dataset.has_labels and dataset.c_dim == 0
    assert dataset.labels([0, 1]).shape == (2, 0)
    assert dataset.random_labels(4, torch.Generator()).shape == (4, 0)


def test_mirror_appends_the_exact_flip_of_each_image(path):
    dataset = ImageDataset(path, use_labels=True, mirror=True)
    assert (dataset.num_raw, dataset.num_images) == (10, 20)
    plain, flipped = dataset.images_u8(range(10)), dataset.images_u8(range(10, 20))
    assert (flipped == plain[:, :, :, ::-1]).all() and (flipped != plain).any()
    assert (dataset.labels(range(10)) == dataset.labels(range(10, 20))).all()


def test_subset_is_random_by_seed_and_keeps_labels_with_their_images(path):
    full = ImageDataset(path, use_labels=True)
    parts = [ImageDataset(path, use_labels=True, max_images=4, seed=seed) for seed in range(8)]
    chosen = set()
    for part in parts:
        assert (part.num_images, part.c_dim) == (4, 3)
        where = [int((full.images_u8(range(10)) == img).all((1, 2, 3)).argmax()) for img in part.images_u8(range(4))]
        assert len(set(where)) == 4
        assert (part.labels(range(4)) == full.labels(where)).all()
        chosen.add(tuple(where))
    assert len(chosen) > 1
    again = ImageDataset(path, max_images=4, seed=0)
    assert (again.images_u8(range(4)) == parts[0].images_u8(range(4))).all()


@pytest.mark.parametrize("pixels, channels", [(IMAGES[..., 0], 1), (np.repeat(IMAGES, 2, 3)[..., :4], 4)])
def test_grey_and_rgba_keep_their_channels(tmp_path, pixels, channels):
    dataset = ImageDataset(write(tmp_path / "a.zip", our_files(pixels, None)))
    assert dataset.num_channels == channels
    assert (dataset.images_u8([3])[0] == pixels[3].reshape(16, 16, channels).transpose(2, 0, 1)).all()


def test_vector_labels_are_given_as_they_are(tmp_path):
    vectors = np.random.default_rng(1).normal(size=(10, 5)).astype(np.float32)
    dataset = ImageDataset(write(tmp_path / "a.zip", our_files(labels=vectors.tolist())), use_labels=True)
    assert dataset.c_dim == 5 and dataset.label_counts is None
    assert (dataset.labels(range(10)) == vectors).all()


def test_first_level_folders_are_classes_where_dataset_json_is_silent(tmp_path):
    files = {
        "set/dog/a/1.png": png(IMAGES[0]),
        "set/dog/2.png": png(IMAGES[1]),
        "set/cat/3.png": png(IMAGES[2]),
    }
    dataset = ImageDataset(write(tmp_path / "a.zip", files), use_labels=True)
    assert dataset.classes == ["cat", "dog"]
    assert dataset.labels(range(3)).argmax(1).tolist() == [0, 1, 1]


def test_null_labels_in_dataset_json_mean_none(tmp_path):
    files = {"dog/1.png": png(IMAGES[0]), "cat/2.png": png(IMAGES[1]), "dataset.json": b'{"labels": null}'}
    assert not ImageDataset(write(tmp_path / "a.zip", files)).has_labels


def test_random_labels_follow_the_distribution_of_the_data(tmp_path):
    dataset = ImageDataset(write(tmp_path / "a.zip", our_files(labels=[0] * 8 + [2] * 2)), use_labels=True)
    labels = dataset.random_labels(5000, torch.Generator().manual_seed(0))
    assert labels.shape == (5000, 3) and labels.dtype == torch.float32
    assert labels.mean(0).tolist() == pytest.approx([0.8, 0, 0.2], abs=0.03)
    assert torch.equal(labels, dataset.random_labels(5000, torch.Generator().manual_seed(0)))


def test_decoded_images_are_kept_only_within_the_bound(path, monkeypatch):
    assert not ImageDataset(path, cache_mb=0).cached
    dataset = ImageDataset(path, mirror=True)
    before = dataset.images_u8(range(20))
    monkeypatch.setattr(dataset, "decoder", None)
    assert dataset.cached and (dataset.images_u8(range(20)) == before).all()


def test_dataset_survives_pickling_with_its_files_open(path):
    dataset = ImageDataset(path, use_labels=True)
    before = dataset.images_u8(range(10))
    copy = pickle.loads(pickle.dumps(dataset))
    assert (copy.images_u8(range(10)) == before).all() and (copy.labels([1]) == dataset.labels([1])).all()


def test_fingerprint_notices_pixels_labels_and_subsets_and_nothing_else(tmp_path):
    def fingerprint(name, files, **kwargs):
        return ImageDataset(write(tmp_path / name, files), **kwargs).fingerprint()

    changed = IMAGES.copy()
    changed[4, 0, 0, 0] ^= 1
    for kind in ("", ".zip"):
        base = fingerprint(f"a{kind}", our_files())
        assert base == fingerprint(f"b{kind}", our_files(), mirror=True, use_labels=True)
        different = [
            fingerprint(f"c{kind}", our_files(changed)),
            fingerprint(f"d{kind}", our_files(labels=CLASSES[::-1])),
            fingerprint(f"e{kind}", our_files(labels=None)),
            fingerprint(f"f{kind}", our_files(), max_images=9),
        ]
        assert len({base, *different}) == 5


# Bad input.


def zip_of(tmp_path: Path, files: dict[str, bytes]) -> Path:
    return write(tmp_path / "bad.zip", files)


def fails(expected: str, path: Path, **kwargs) -> str:
    with pytest.raises(DataError) as caught:
        dataset = ImageDataset(path, **kwargs)
        dataset.images_u8(range(len(dataset)))
    message = str(caught.value)
    assert str(path) in message and expected in message, message
    return message


def test_missing_path_is_refused(tmp_path):
    fails("no such file or folder", tmp_path / "nothing")


def test_empty_folder_and_empty_zip_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    fails("no images in this folder", tmp_path / "empty")
    fails(
        "no images in this zip",
        zip_of(tmp_path, {"readme.txt": b"", ".hidden.png": b"", "__MACOSX/a.png": b""}),
    )


@pytest.mark.parametrize("keep", [0, 100, -30])
def test_truncated_zip_is_refused(tmp_path, keep):
    path = zip_of(tmp_path, our_files())
    path.write_bytes(path.read_bytes()[:keep])
    fails("corrupt or truncated", path)


def test_image_damaged_inside_a_zip_is_named_when_met(tmp_path):
    path = zip_of(tmp_path, our_files())
    data = bytearray(path.read_bytes())
    offset = data.index(our_files()[name_of(7)])
    data[offset + 100] ^= 255
    path.write_bytes(data)
    assert name_of(7) in fails("damaged", path)


@pytest.mark.parametrize("data", [b"not an image", png(IMAGES[7])[:-300], png(IMAGES[7])[:20]])
def test_corrupt_or_truncated_image_is_named(tmp_path, data):
    path = write(tmp_path / "set", {**our_files(), name_of(7): data})
    message = fails("corrupt or truncated", path)
    assert name_of(7) in message and "BytesIO" not in message


def test_mixed_sizes_are_refused_on_opening(tmp_path):
    path = zip_of(tmp_path, {**our_files(), name_of(7): png(IMAGES[7][:8, :8])})
    with pytest.raises(DataError, match=r"img00000007.png: is 8x8 with 3 channels, expected 16x16 with 3"):
        ImageDataset(path)


def test_mixed_channels_are_refused_on_opening(tmp_path):
    path = zip_of(tmp_path, {**our_files(), name_of(7): png(IMAGES[7][..., 0])})
    with pytest.raises(DataError, match=r"img00000007.png: is 16x16 with 1 channels, expected 16x16 with 3"):
        ImageDataset(path)


@pytest.mark.parametrize("height, width", [(16, 8), (12, 12), (4, 4)])
def test_sizes_that_are_no_square_power_of_two_are_refused(tmp_path, height, width):
    message = fails("power of two", zip_of(tmp_path, our_files(IMAGES[:, :height, :width])))
    assert f"{width}x{height}" in message and "ggdr dataset" in message


def test_sixteen_bit_images_are_refused_rather_than_clipped(tmp_path):
    path = zip_of(tmp_path, {"a.png": png(np.zeros((16, 16), dtype=np.uint16))})
    fails("expected 8-bit", path)


def test_missing_labels_are_refused_when_asked_for(tmp_path):
    fails("has no labels", zip_of(tmp_path, our_files(labels=None)), use_labels=True)


@pytest.mark.parametrize(
    "meta, expected",
    [
        (b"{", "invalid JSON"),
        (b"[]", "expected an object"),
        (b'{"labels": 3}', "list of [name, label] pairs"),
        (b'{"labels": [["00000/img00000000.png"]]}', "list of [name, label] pairs"),
        (json.dumps({"labels": [[name_of(i), 0] for i in range(9)]}).encode(), "9 labels for 10 images"),
        (json.dumps({"labels": [[name_of(i), 0] for i in range(11)]}).encode(), "11 labels for 10 images"),
        (json.dumps({"labels": [[name_of(i % 10), 0] for i in range(11)]}).encode(), "occurs twice"),
        (json.dumps({"labels": [[name_of(i), i - 1] for i in range(10)]}).encode(), "is -1; expected 0 to 65535"),
        (json.dumps({"labels": [[name_of(i), i * 10**8] for i in range(10)]}).encode(), "expected 0 to 65535"),
        (json.dumps({"labels": [[name_of(i), "cat"] for i in range(10)]}).encode(), "expected integers >= 0"),
        (json.dumps({"labels": [[name_of(i), [0.0] * (1 + i)] for i in range(10)]}).encode(), "one length"),
        (
            json.dumps({"labels": [[name_of(i), [np.nan]] for i in range(10)]}).encode(),
            "expected integers >= 0",
        ),
        (json.dumps({"labels": [[name_of(i), 0] for i in range(10)], "classes": 3}).encode(), '"classes"'),
    ],
)
def test_invalid_dataset_json_is_refused(tmp_path, meta, expected):
    path = zip_of(tmp_path, {**our_files(), "dataset.json": meta})
    assert "dataset.json" in fails(expected, path)
