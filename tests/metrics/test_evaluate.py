# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Metrics by name on images: what is compared, cached, warned of and refused."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace

import click
import numpy as np
import pytest
import torch
from PIL import Image

from ggdr.metrics.compute import Compared, compute
from ggdr.metrics.custom import custom_features, state_hash
from ggdr.metrics.detector import Detector
from ggdr.metrics.detectors import DETECTORS, DetectorEntry, DetectorFiles, FileOption, named_after
from ggdr.metrics.evaluate import Job, StoredReals, _all_lengths, _extract, evaluate
from ggdr.metrics.extract import (
    Extracted,
    FeatureRequest,
    MetricError,
    MetricsStopped,
    OutOfMemory,
    chosen_numbers,
    extract,
)
from ggdr.metrics.feature_cache import FeatureCache
from ggdr.metrics.fid import frechet_distance
from ggdr.metrics.image_sets import FileImages, GeneratedImages, load_statistics, save_statistics
from ggdr.metrics.names import MAX_REALS, parse_metrics
from ggdr.metrics.resize import MODES
from ggdr.metrics.stats import FeatureStats, Gaussian
from ggdr.scripts.measuring.real_images import comparison_warnings, open_reals
from ggdr.scripts.measuring.results import describe_result
from ggdr.scripts.options.detectors import detector_options, given_files
from ggdr.torch_utils.distributed import ProcessGroup
from ggdr.torch_utils.downloads import WeightsError
from tests.metric_cases import DETECTOR, limited, noise_images, thumbnails, write_images

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
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    # From the cache: no image is read again.
    reals_unreadable = FileImages(reals.container.path)
    reals_unreadable.batches = None
    assert values(ALL, job(reals_unreadable, fakes, cache=cache)) == expected


def test_a_damaged_cache_is_made_again(reals, fakes, tmp_path):
    cache = FeatureCache(tmp_path)
    expected = values(ALL, job(reals, fakes, cache=cache))
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    assert values(ALL, job(reals, fakes, cache=cache)) == expected
    assert file.stat().st_size > 1000


def test_features_that_another_process_makes_are_waited_for(reals, fakes, tmp_path):
    expected = values(ALL, job(reals, fakes, cache=FeatureCache(tmp_path / "made")))
    cache = FeatureCache(tmp_path / "cache")
    unreadable = FileImages(reals.container.path)
    unreadable.batches = None
    found = []
    waiting = threading.Thread(target=lambda: found.append(values(ALL, job(unreadable, fakes, cache=cache))))
    with cache.alone(reals):
        waiting.start()
        waiting.join(0.3)
        for file in (tmp_path / "made").glob("*.safetensors"):
            shutil.copy(file, tmp_path / "cache")
    waiting.join()
    assert found == [expected]


def test_who_is_stopped_does_not_wait_for_features(reals, fakes, tmp_path):
    cache = FeatureCache(tmp_path)
    with cache.alone(reals), pytest.raises(MetricsStopped):
        evaluate(parse_metrics(ALL), replace(job(reals, fakes, cache=cache), is_stopped=lambda: True))


def test_a_cache_that_cannot_be_written_costs_no_result(reals, fakes, tmp_path, caplog):
    (tmp_path / "file").write_bytes(b"")
    cache = FeatureCache(tmp_path / "file" / "below")
    assert values(ALL, job(reals, fakes, cache=cache)) == values(ALL, job(reals, fakes))
    assert "features of real images are not kept" in caplog.text


def test_the_cache_tells_images_and_detectors_apart(reals, fakes, tmp_path):
    cache = FeatureCache(tmp_path)
    for mirror in (False, True):
        values("fd_custom0.08k_full", job(FileImages(reals.container.path, mirror=mirror), fakes, cache=cache))
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    # Statistics alone were kept; a metric that compares images one by one needs more.
    assert "kd_custom0.08k_full_mean" in values("kd_custom0.08k_full", job(reals, fakes, cache=cache))


def test_order_of_images_does_not_matter(reals, tmp_path):
    images = noise_images(80, seed=1, shift=10)
    names = "fd_custom0.08k_full,pr_custom0.08k3_full,dc_custom0.08k5_full"
    forward = FileImages(write_images(tmp_path / "a.zip", images))
    backward = FileImages(write_images(tmp_path / "b.zip", images[::-1]))
    assert values(names, job(reals, forward)) == pytest.approx(values(names, job(reals, backward)), rel=1e-9)


def test_fewer_fakes_than_there_are_come_from_all_over_the_folder(reals, tmp_path):
    # As a folder of classes is sorted: dark images, then bright ones.
    images = noise_images(80, seed=1)
    images[:40] //= 2
    folder = FileImages(write_images(tmp_path / "sorted", images, labels=np.arange(80) // 40))
    (result,) = evaluate(parse_metrics("fd_custom0.04k_full"), job(reals, folder))
    numbers = chosen_numbers(80, 40)
    assert 10 < (numbers < 40).sum() < 30
    a, b = gaussian(noise_images(90), 0), gaussian(images[numbers], 0)
    assert result.value == pytest.approx(frechet_distance(a.mean, a.cov, b.mean, b.cov))
    assert result.choices["num_fakes"] == 40 and result.choices["fakes_chosen_from"] == 80
    assert "40 fakes (at random from 80), 90 reals" in describe_result(result)


def test_fewer_fakes_are_the_same_ones_beside_metrics_of_more(reals, fakes):
    alone = values("fd_custom0.04k_full,kd_custom0.04k_full,intra_fd_custom0.04k_full", job(reals, fakes))
    beside = values(
        "fd_custom0.04k_full,kd_custom0.04k_full,intra_fd_custom0.04k_full,pr_custom0.06k_full,fd_custom0.08k_full",
        job(reals, fakes),
    )
    assert {name: beside[name] for name in alone} == pytest.approx(alone, rel=1e-9)
    assert beside["fd_custom0.08k_full"] != beside["fd_custom0.04k_full"]


def test_logits_are_those_of_the_images_that_are_chosen(fakes):
    def extract_numbers(images_u8):
        rows = images_u8.float().mean((2, 3))
        return {"features": rows, "logits": rows}

    detector = Detector("numbers", "0", "none", extract_numbers)
    made = extract(
        fakes, {"numbers": (detector, FeatureRequest(keep=50, logits=30))}, num=60, batch=7, device=CPU,
        group=ProcessGroup(),
    )["numbers"]  # fmt: skip
    (expected,) = fakes.batches([chosen_numbers(80, 20)])
    expected = expected.float().mean((2, 3))
    assert torch.equal(made.logits_of(20), expected) and torch.equal(made.features_of(20), expected)
    assert len(made.logits) == 30 and len(made.features) == 50 and made.stats.num == 60


@pytest.mark.parametrize("total, mode, num", [(20, "clean", 1), (20, "torch-fidelity", 0), (None, "clean", 0)])
def test_an_inception_score_of_files_in_their_order_is_warned_of(total, mode, num):
    (spec,) = parse_metrics("is0.02k")
    fake = Extracted(20, FeatureStats(3), logits=torch.eye(20, 5), total=total)
    result = compute(Compared(spec, None, fake, None, None, MODES[mode], 0, CPU))
    assert len(result.warnings) == num


def test_images_of_different_sizes_are_judged_each_by_itself(reals, tmp_path):
    images = noise_images(40, seed=1)
    folder = write_images(tmp_path / "mixed", images[:20])
    others = write_images(tmp_path / "others", images[20:].repeat(2, axis=1).repeat(3, axis=2))
    for i, path in enumerate(sorted(others.iterdir())):
        path.rename(folder / f"img{i:05d}b.png")  # between the others
    same = FileImages(write_images(tmp_path / "same", images))
    names = "fd_custom0.04k_full,pr_custom0.04k3_full"  # of mean colours, which enlarging keeps
    assert values(names, job(reals, FileImages(folder))) == pytest.approx(values(names, job(reals, same)), rel=1e-6)


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


@pytest.mark.parametrize("mode", list(MODES))
def test_stored_statistics_give_what_the_images_do_in_every_mode(reals, fakes, tmp_path, mode):
    stats = FeatureStats(12)
    stats.update(features(noise_images(90)))
    save_statistics(tmp_path / "stats.npz", stats, "{}")
    stored = open_reals(tmp_path / "stats.npz", mirror=False, workers=0, as_stored=False)
    for name in ("fd_custom0.08k_full", "fdinf_custom0.08k_full"):
        expected = values(name, job(reals, fakes, mode=mode))
        assert values(name, job(stored, fakes, mode=mode)) == pytest.approx(expected, rel=1e-9)


def test_statistics_of_an_unknown_number_of_images_stay_as_they_are(fakes, tmp_path):
    a, b = gaussian(noise_images(90), 1), gaussian(noise_images(80, seed=1, shift=10), 0)
    np.savez(tmp_path / "foreign.npz", mu=a.mean.numpy(), sigma=a.cov.numpy())
    stored = open_reals(tmp_path / "foreign.npz", mirror=False, workers=0, as_stored=False)
    (result,) = evaluate(parse_metrics("fd_custom0.08k_full"), job(stored, fakes))
    assert result.value == pytest.approx(frechet_distance(a.mean, a.cov, b.mean, b.cov))
    assert "num_reals" not in result.choices and "reals" not in describe_result(result).splitlines()[1]
    warnings = comparison_warnings(stored, fakes, MODES["stylegan"])
    assert any("does not say of how many images N" in warning for warning in warnings)
    assert not any("how many" in warning for warning in comparison_warnings(stored, fakes, MODES["clean"]))


def test_a_generator_makes_as_many_images_as_asked(reals):
    drawn = []
    images = torch.from_numpy(noise_images(100, seed=1)).permute(0, 3, 1, 2)

    def draw(numbers):
        drawn.extend(numbers)
        return images[numbers]

    values("fd_custom0.05k_full", job(reals, GeneratedImages(draw), batch=16))
    assert drawn == list(range(50))


# Memory.


def test_paths_are_fewer_at_a_time_where_the_memory_does_not_suffice(reals, fakes):
    (spec,), sizes = parse_metrics("ppl2_wend0.01k"), []
    paths = limited(lambda numbers: torch.tensor(list(numbers)).double(), 3, sizes)
    detectors = {spec.detector: None}
    found = _all_lengths(
        spec, replace(job(reals, fakes, batch=6, measure_paths=lambda spec, n, d: paths(n)), detectors=detectors)
    )
    assert sizes == [6, 3, 3, 3, 1] and found.tolist() == list(range(10))


def test_a_single_image_that_does_not_fit_the_memory_is_said(reals):
    images = GeneratedImages(limited(None, 0, []))
    with pytest.raises(OutOfMemory, match="^not enough GPU memory for the fakes, even for one at a time$"):
        values("fd_custom0.05k_full", job(reals, images))


def test_features_that_do_not_fit_the_memory_are_compared_on_the_cpu(reals, fakes, monkeypatch):
    expected, devices = values("fd_custom0.08k_full", job(reals, fakes)), []

    def only_on_the_cpu(compared):
        devices.append(compared.device.type)
        if compared.device.type == "meta":
            raise torch.OutOfMemoryError
        return compute(compared)

    full = job(reals, fakes)
    monkeypatch.setattr(full.detectors, "device", torch.device("meta"))
    monkeypatch.setattr("ggdr.metrics.evaluate.compute", only_on_the_cpu)
    monkeypatch.setattr(
        "ggdr.metrics.evaluate._extract",
        lambda what, source, num, wants, _: _extract(what, source, num, wants, job(reals, fakes)),
    )
    assert values("fd_custom0.08k_full", full) == expected and devices == ["meta", "cpu"]


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


def test_images_that_are_too_small_are_said(reals, tmp_path):
    folder = write_images(tmp_path / "small", noise_images(9))
    Image.new("RGB", (12, 4)).save(folder / "icon.png")
    with pytest.raises(MetricError, match="detector offline: images must be at least 8x8, got one of 12x4"):
        values("fd_offline0.01k_full", job(reals, FileImages(folder)))


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


def test_a_seed_chooses_the_subsets_of_kid(reals, fakes):
    first = values("kd_custom0.04k_full", job(reals, fakes))
    again = values("kd_custom0.04k_full", job(reals, fakes))
    other = values("kd_custom0.04k_full", replace(job(reals, fakes), seed=1))
    assert first == again and first != other
