# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Metrics by name on images: what is compared, cached, warned of and refused."""

from __future__ import annotations

from dataclasses import replace

import click
import numpy as np
import pytest
import torch

from ggdr.metrics.custom import custom_features, state_hash
from ggdr.metrics.detectors import DETECTORS, DetectorEntry, DetectorFiles, FileOption, named_after
from ggdr.metrics.evaluate import Job, StoredReals, evaluate
from ggdr.metrics.extract import MetricError
from ggdr.metrics.feature_cache import FeatureCache
from ggdr.metrics.fid import frechet_distance
from ggdr.metrics.image_sets import (
    ArrayImages,
    FileImages,
    GeneratedImages,
    load_statistics,
    open_images,
    save_statistics,
)
from ggdr.metrics.names import MAX_REALS, parse_metrics
from ggdr.metrics.resize import MODES
from ggdr.metrics.stats import FeatureStats, Gaussian
from ggdr.scripts.options.detectors import detector_options, given_files
from ggdr.torch_utils.data.image_files import DataError
from ggdr.torch_utils.downloads import WeightsError
from tests.metric_cases import DETECTOR, noise_images, thumbnails, write_images

CPU = torch.device("cpu")
LABELS = np.arange(90) % 3


@pytest.fixture(scope="module")
def reals(tmp_path_factory):
    return FileImages(write_images(tmp_path_factory.mktemp("reals") / "reals.zip", noise_images(90), labels=LABELS))


@pytest.fixture(scope="module")
def fakes(tmp_path_factory):
    images = noise_images(80, seed=1, shift=10)
    return FileImages(write_images(tmp_path_factory.mktemp("fakes") / "fakes.zip", images, labels=LABELS[:80]))


def job(reals, fakes, *, mode="stylegan", detector=DETECTOR, **options) -> Job:
    given = {} if detector is None else {"detector": detector}
    return Job(DetectorFiles(MODES[mode], CPU, given), reals=reals, fakes=fakes, **options)


def values(names: str, job: Job) -> dict[str, float]:
    return {name: value for result in evaluate(parse_metrics(names), job) for name, value in result.values.items()}


def features(images: np.ndarray) -> torch.Tensor:
    return thumbnails(CPU)(torch.from_numpy(images).permute(0, 3, 1, 2))


def gaussian(images: np.ndarray, ddof: int) -> Gaussian:
    stats = FeatureStats(12)
    stats.update(features(images))
    return stats.gaussian(ddof)


@pytest.mark.parametrize(("mode", "ddof"), [("stylegan", 0), ("pytorch-fid", 1)])
def test_frechet_distance_is_that_of_the_images_features(reals, fakes, mode, ddof):
    a, b = gaussian(noise_images(90), ddof), gaussian(noise_images(80, seed=1, shift=10), ddof)
    expected = frechet_distance(a.mean, a.cov, b.mean, b.cov)
    assert values("fd_custom0.08k_full", job(reals, fakes, mode=mode))["fd_custom0.08k_full"] == pytest.approx(expected)


ALL = "fd_custom0.08k_full,kd_custom0.08k_full,pr_custom0.08k3_full,dc_custom0.08k5_full,fdinf_custom0.08k_full," \
    "intra_fd_custom0.08k_full"  # fmt: skip


def test_batch_size_workers_and_caching_change_no_metric(reals, fakes, tmp_path):
    expected = values(ALL, job(reals, fakes, batch=64))
    assert len(expected) == 9
    assert values(ALL, job(reals, fakes, batch=7)) == expected
    with_workers = FileImages(reals.container.path, workers=2)
    cache = FeatureCache(tmp_path)
    assert values(ALL, job(with_workers, fakes, cache=cache)) == expected
    assert len(list(tmp_path.iterdir())) == 1
    # From the cache: no image is read again.
    reals_unreadable = FileImages(reals.container.path)
    reals_unreadable.batches = None
    assert values(ALL, job(reals_unreadable, fakes, cache=cache)) == expected


def test_a_damaged_cache_is_made_again(reals, fakes, tmp_path):
    cache = FeatureCache(tmp_path)
    expected = values(ALL, job(reals, fakes, cache=cache))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert values(ALL, job(reals, fakes, cache=cache)) == expected
    assert file.stat().st_size > 1000


def test_a_cache_that_cannot_be_written_costs_no_result(reals, fakes, tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    cache = FeatureCache(tmp_path / "file" / "below")
    assert values(ALL, job(reals, fakes, cache=cache)) == values(ALL, job(reals, fakes))
    assert "features of real images are not kept" in caplog.text


def test_the_cache_tells_images_and_detectors_apart(reals, fakes, tmp_path):
    cache = FeatureCache(tmp_path)
    for mirror in (False, True):
        values("fd_custom0.08k_full", job(FileImages(reals.container.path, mirror=mirror), fakes, cache=cache))
    assert len(list(tmp_path.iterdir())) == 2
    # Statistics alone were kept; a metric that compares images one by one needs more.
    assert "kd_custom0.08k_full_mean" in values("kd_custom0.08k_full", job(reals, fakes, cache=cache))


def test_order_of_images_does_not_matter(reals, tmp_path):
    images = noise_images(80, seed=1, shift=10)
    names = "fd_custom0.08k_full,pr_custom0.08k3_full,dc_custom0.08k5_full"
    forward = FileImages(write_images(tmp_path / "a.zip", images))
    backward = FileImages(write_images(tmp_path / "b.zip", images[::-1]))
    assert values(names, job(reals, forward)) == pytest.approx(values(names, job(reals, backward)), rel=1e-9)


def test_fewer_fakes_for_one_metric_are_the_first_ones(reals, fakes):
    alone = values("fd_custom0.04k_full", job(reals, fakes))
    both = values("fd_custom0.04k_full,fd_custom0.08k_full", job(reals, fakes))
    assert both["fd_custom0.04k_full"] == pytest.approx(alone["fd_custom0.04k_full"], rel=1e-9)
    assert both["fd_custom0.08k_full"] != both["fd_custom0.04k_full"]


def test_reals_that_stand_for_all_are_the_same_beside_other_detectors(tmp_path, fakes, monkeypatch):
    monkeypatch.setitem(MAX_REALS, "pr", 30)
    # Sorted, as folders of classes are: the first 30 are no sample.
    images = np.concatenate([noise_images(30, seed=i) // (i + 1) for i in range(3)])
    reals = FileImages(write_images(tmp_path / "sorted.zip", images))
    alone = values("pr_custom0.08k3_full", job(reals, fakes))
    beside = values("kd_offline0.08k_full,pr_custom0.08k3_full", job(reals, fakes))
    both = values("kd_custom0.08k_full,pr_custom0.08k3_full", job(reals, fakes))
    for other in (beside, both):
        assert {name: other[name] for name in alone} == alone


def test_per_class_distance_sees_swapped_classes(reals, tmp_path):
    colours = noise_images(90, seed=3)
    colours[LABELS == 1] //= 2
    real = FileImages(write_images(tmp_path / "real.zip", colours, labels=LABELS))
    same = FileImages(write_images(tmp_path / "same.zip", colours, labels=LABELS))
    swapped = FileImages(write_images(tmp_path / "swapped.zip", colours, labels=np.array([0, 2, 1])[LABELS]))
    names = "fd_custom0.09k_full,intra_fd_custom0.09k_full"
    right, wrong = values(names, job(real, same)), values(names, job(real, swapped))
    assert wrong["fd_custom0.09k_full"] == pytest.approx(0, abs=1e-6)
    assert right["intra_fd_custom0.09k_full"] == pytest.approx(0, abs=1e-6)
    assert wrong["intra_fd_custom0.09k_full"] > 0.05


def test_a_result_names_every_choice(reals, fakes):
    (result,) = evaluate(parse_metrics("fd_custom0.08k_full"), job(reals, fakes, mode="clean", seed=3))
    choices = result.to_json()["choices"]
    assert choices["mode"] == "clean" and choices["cov_ddof"] == 1 and choices["seed"] == 3
    assert (choices["num_reals"], choices["num_fakes"], choices["quantisation"]) == (90, 80, "uint8")
    assert choices["detector"] == "custom" and len(choices["detector_hash"]) == 16
    assert choices["reals"]["flips"] is False and len(choices["reals"]["sha256"]) == 16
    assert any("80 fakes" in warning for warning in result.warnings)


def test_stored_statistics_take_the_place_of_images(reals, fakes, tmp_path):
    stats = FeatureStats(12)
    stats.update(features(noise_images(90)))
    save_statistics(tmp_path / "stats.npz", stats, "{}")
    mean, cov, num, _ = load_statistics(tmp_path / "stats.npz")
    stored = StoredReals(Gaussian(mean, cov, num), {"path": "stats.npz"})
    expected = values("fd_custom0.08k_full", job(reals, fakes, mode="pytorch-fid"))
    assert values("fd_custom0.08k_full", job(stored, fakes, mode="pytorch-fid")) == pytest.approx(expected)
    with pytest.raises(MetricError, match="kd_custom0.08k_full: needs real images, got only their mean"):
        values("kd_custom0.08k_full", job(stored, fakes))


def test_a_generator_makes_as_many_images_as_asked(reals):
    drawn = []
    images = torch.from_numpy(noise_images(100, seed=1)).permute(0, 3, 1, 2)

    def draw(numbers):
        drawn.extend(numbers)
        return images[numbers]

    values("fd_custom0.05k_full", job(reals, GeneratedImages(draw), batch=16))
    assert drawn == list(range(50))


@pytest.mark.parametrize(
    ("names", "change", "message"),
    [
        ("fd_custom1k_full", {}, "needs 1000 fakes, got 80; ask for as many as there are: fd_custom0.08k_full"),
        ("fd_custom0.08k_full", {"reals": None}, "needs real images"),
        ("ppl2_wend", {}, "measures a generator, not images"),
        ("kd_custom0.08k_full", {"detector": "tests.metric_cases:not_finite"}, "some images are not finite"),
        ("pr_custom0.002k3_full", {}, "pr_custom0.002k3_full: at least 4 fakes are needed, got 2"),
        ("fdinf_custom0.029k_full", {}, "at least 30 fakes are needed, got 29"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_said(reals, fakes, names, change, message):
    options = {"reals": reals, "fakes": fakes, **change}
    with pytest.raises(MetricError, match=message):
        values(names, job(**options))


def test_too_few_reals_are_refused_before_any_work(fakes, tmp_path):
    few = FileImages(write_images(tmp_path / "few.zip", noise_images(3)))
    few.batches = None
    with pytest.raises(MetricError, match="at least 6 reals are needed, got 3"):
        values("dc_custom0.08k5_full", job(few, fakes))


@pytest.mark.parametrize("name", ["fdinf_custom0.03k_full", "pr_custom0.004k3_full", "kd_custom0.002k_full"])
def test_the_fewest_fakes_that_are_accepted_suffice(reals, fakes, name):
    assert all(np.isfinite(list(values(name, job(reals, fakes)).values())))


def test_per_class_distance_needs_classes(reals, tmp_path):
    plain = FileImages(write_images(tmp_path / "plain.zip", noise_images(80)))
    with pytest.raises(MetricError, match="the fakes have none"):
        values("intra_fd_custom0.08k_full", job(reals, plain))


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        (None, "need --detector module:function"),
        ("tests.metric_cases:missing", "expected module:function that can be imported"),
        ("no_such_module:f", "expected module:function that can be imported"),
        ("tests.metric_cases:wrong_shape", r"expected features \[64, D\], got \(64, 3, 16, 16\)"),
    ],
)
def test_a_detector_that_is_none_is_named(reals, fakes, detector, message):
    with pytest.raises(WeightsError, match=message):
        values("fd_custom0.08k_full", job(reals, fakes, detector=detector))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_torchscript_file_is_a_detector(reals, fakes, tmp_path):
    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float().mean(dim=[2, 3])

    torch.jit.script(Mean()).save(tmp_path / "mean.pt")
    result = values("fd_custom0.08k_full", job(reals, fakes, detector=str(tmp_path / "mean.pt")))
    a, b = (torch.from_numpy(noise_images(n, **k)).float().mean(dim=[1, 2]).double()
            for n, k in ((90, {}), (80, {"seed": 1, "shift": 10})))  # fmt: skip
    expected = frechet_distance(a.mean(0), a.T.cov(correction=0), b.mean(0), b.T.cov(correction=0))
    assert result["fd_custom0.08k_full"] == pytest.approx(expected, rel=1e-4)
    (tmp_path / "none.pt").write_bytes(b"no torchscript")
    with pytest.raises(WeightsError, match="no TorchScript file that can be read"):
        custom_features(str(tmp_path / "none.pt"), CPU)


def test_a_new_detector_is_a_module_and_an_entry_in_the_list(reals, fakes, tmp_path, monkeypatch):
    option = FileOption("gains", "Gains of the toy detector.")
    monkeypatch.setitem(DETECTORS, "toy", DetectorEntry("tests.toy_detector", named_after("toy"), option))
    path = tmp_path / "gains.txt"
    path.write_text("1 2 3")
    command = detector_options(click.Command("measure", callback=lambda **given: given_files(given)))
    given = command.main(["--gains", str(path)], standalone_mode=False)
    task = Job(DetectorFiles(MODES["stylegan"], CPU, given), reals=reals, fakes=fakes)
    (result,) = evaluate(parse_metrics("fd_toy0.08k_full"), task)
    colours = [torch.from_numpy(noise_images(n, **k)).double().mean(dim=[1, 2]) * torch.tensor([1, 2, 3])
               for n, k in ((90, {}), (80, {"seed": 1, "shift": 10}))]  # fmt: skip
    a, b = colours
    expected = frechet_distance(a.mean(0), a.T.cov(correction=0), b.mean(0), b.T.cov(correction=0))
    assert result.value == pytest.approx(expected, rel=1e-4)
    assert (result.choices["detector"], result.choices["resize"]) == ("toy", "none")
    with pytest.raises(WeightsError, match="toy detector: --gains FILE is needed"):
        evaluate(parse_metrics("kd_toy0.08k_full"), replace(task, detectors=DetectorFiles(MODES["stylegan"], CPU)))


def test_a_networks_hash_is_that_of_its_weights():
    net = torch.nn.BatchNorm1d(3)
    before = state_hash(net)
    net.running_mean[1] = 1
    assert state_hash(net) != before and len(before) == 16


# Images of anyone's.


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_files_of_any_kind_are_read_as_rgb(tmp_path, channels):
    images = noise_images(3, channels=channels, res=9)[:, :, :7]
    source = FileImages(write_images(tmp_path / "images", images))
    (batch,) = source.batches([np.arange(3)])
    expected = np.repeat(images, 3, axis=3) if channels == 1 else images[..., :3]
    assert np.array_equal(batch.permute(0, 2, 3, 1).numpy(), expected)
    assert source.describe()["size"] == [7, 9]


def test_flips_follow_the_images(tmp_path):
    images = noise_images(3)
    source = FileImages(write_images(tmp_path / "images.zip", images), mirror=True)
    (batch,) = source.batches([np.array([1, 4])])
    assert source.num == 6
    assert np.array_equal(batch[1].numpy(), batch[0].numpy()[:, :, ::-1])
    assert source.fingerprint() != FileImages(tmp_path / "images.zip").fingerprint()


def test_arrays_of_generate_and_of_others_are_read(tmp_path):
    images = noise_images(5)
    np.savez(tmp_path / "ours.npz", images=images, seeds=np.arange(5))
    np.savez(tmp_path / "theirs.npz", images)
    for name in ("ours.npz", "theirs.npz"):
        (batch,) = open_images(tmp_path / name).batches([np.array([3])])
        assert np.array_equal(batch[0].permute(1, 2, 0).numpy(), images[3])
    np.savez(tmp_path / "floats.npz", images / 255.0)
    with pytest.raises(DataError, match=r"floats.npz: expected images uint8 .* got float64 \[5, 16, 16, 3\]"):
        ArrayImages(tmp_path / "floats.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="broken.npz: no .npz file"):
        open_images(tmp_path / "broken.npz")


def test_bad_images_are_named(tmp_path):
    folder = write_images(tmp_path / "mixed", noise_images(3))
    write_images(tmp_path / "other", noise_images(1, res=8))
    (tmp_path / "other" / "img00000.png").rename(folder / "img00001.png")
    with pytest.raises(DataError, match=r"img00001.png: is 8x8, expected 16x16 as img00000.png; .* ggdr dataset"):
        list(FileImages(folder).batches([np.arange(3)]))
    (folder / "img00001.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError, match="img00001.png: cannot be decoded"):
        list(FileImages(folder).batches([np.arange(3)]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no images in this folder"):
        FileImages(tmp_path / "empty")


def test_statistics_that_do_not_fit_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.eye(4))
    with pytest.raises(DataError, match=r"expected mu \[D\] and sigma \[D, D\], got \[3\] and \[4, 4\]"):
        load_statistics(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", mu=np.full(3, np.nan), sigma=np.eye(3))
    with pytest.raises(DataError, match="not finite"):
        load_statistics(tmp_path / "b.npz")


def test_a_seed_chooses_the_subsets_of_kid(reals, fakes):
    first = values("kd_custom0.04k_full", job(reals, fakes))
    again = values("kd_custom0.04k_full", job(reals, fakes))
    other = values("kd_custom0.04k_full", replace(job(reals, fakes), seed=1))
    assert first == again and first != other
