# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The wheel: what is in it, and what works where it is installed, beside torch and numpy alone or beside everything."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from tests.conftest import ROOT, TINY_RUN
from tests.environments import Environment

# Where the wheel has the folders of the repository.
FOLDERS = {
    "ggdr": "ggdr",
    **{name: f"ggdr/{name}" for name in ("stylegan2", "translation", "torch_utils", "metrics", "scripts")},
}
EXTRAS = {"app", "tensorboard", "lmdb", "onnx", "test"}
ABSENT = ["PIL", "click", "imageio", "lmdb", "matplotlib", "plotly", "rich", "safetensors", "scipy", "sklearn", "yaml"]


def build(hook, source, out):
    """Calls a hook of the build backend, without a network; the file that it made in `out`."""
    code = f"import sys; from setuptools import build_meta; build_meta.{hook}(sys.argv[1])"
    out.mkdir()
    result = subprocess.run([sys.executable, "-c", code, str(out)], cwd=source, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (path,) = out.iterdir()
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the project, with what an earlier build left behind."""
    try:
        installed = version("setuptools")
    except PackageNotFoundError:
        pytest.skip("setuptools, which builds the wheel, is not installed")
    if int(installed.split(".")[0]) < 77:
        pytest.skip(f"setuptools 77 or later builds the wheel; here is {installed}")
    folder = tmp_path_factory.mktemp("source")
    for name in (*FOLDERS, "benchmarks", "examples", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    (folder / "build" / "lib" / "ggdr").mkdir(parents=True)
    (folder / "build" / "lib" / "ggdr" / "of_an_earlier_build.py").touch()
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    return build("build_wheel", source, tmp_path_factory.mktemp("wheel") / "out")


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """What `pip install .` makes: the wheel, torch, numpy, and what these two require."""
    environment = Environment(tmp_path_factory.mktemp("bare") / "env", wheel)
    environment.link("torch")
    environment.link("numpy")
    return environment


@pytest.fixture(scope="module")
def full(wheel, tmp_path_factory):
    """What `pip install '.[app]'` makes."""
    environment = Environment(tmp_path_factory.mktemp("full") / "env", wheel)
    environment.add_everything()
    return environment


@pytest.fixture
def foreign(tmp_path):
    """A project of others with packages, with and without `__init__.py`, and a file that are called as ours are."""
    for name in ("torch_utils/__init__", "metrics/fid", "scripts/cli", "stylegan2/config", "click"):
        path = tmp_path / "project" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "OWNER = 'others'\n" if name.startswith(("torch", "metrics")) else "raise SystemExit('a foreign file')\n"
        )
    shutil.copy(ROOT / "tests" / "toy_gan.py", tmp_path / "project")
    return tmp_path / "project"


def names_in(wheel):
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def test_the_wheel_holds_every_file_of_the_folders_and_no_other(source, wheel):
    files = {
        f"{below}/{path.relative_to(source / folder)}"
        for folder, below in FOLDERS.items()
        for path in (source / folder).rglob("*")
        if path.is_file()
    }
    assert names_in(wheel) == files
    assert {Path(name).suffix for name in files} >= {".py", ".cpp", ".cu", ".h", ".js", ".css", ".html"}
    assert [name for name in files if name.endswith("py.typed")] == ["ggdr/py.typed"], "one marks all packages below it"


def test_the_wheel_of_a_source_archive_is_the_same(source, wheel, tmp_path):
    shutil.unpack_archive(build("build_sdist", source, tmp_path / "sdist"), tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert names_in(build("build_wheel", unpacked, tmp_path / "wheel")) == names_in(wheel)


def test_the_plugin_requires_torch_and_numpy_alone(bare):
    required = [text for text in bare.ggdr.requires if "extra ==" not in text]
    assert sorted(re.match(r"\w+", text)[0] for text in required) == ["numpy", "torch"]
    assert set(bare.ggdr.metadata.get_all("Provides-Extra")) == EXTRAS
    assert "Apache License" in bare.ggdr.read_text("licenses/LICENSE")


def test_operations_include_headers_that_are_in_the_wheel(bare):
    ops = bare.site / "ggdr" / "torch_utils" / "ops"
    included = [
        (path, name)
        for path in ops.rglob("*")
        if path.suffix in (".cpp", ".cu", ".h")
        for name in re.findall(r'#include "(.+)"', path.read_text())
    ]
    assert len(included) > 10
    for path, name in included:
        assert any((folder / name).exists() for folder in (path.parent, ops)), f"{path.name} includes {name}"


# Beside torch and numpy alone.

TRAIN_TOYS = """
import torch
import metrics.fid, torch_utils
from toy_gan import ToyD, ToyG, attach
from ggdr import GGDR

torch.manual_seed(0)
G, D = ToyG(), ToyD()
ggdr = attach(G, D)
assert isinstance(ggdr, GGDR)
parameters = [*D.parameters(), *ggdr.parameters()]
penalties = []
for _ in range(20):
    with ggdr.watch() as feats:
        logits = D(G(torch.randn(8, 4)).detach())
    penalty = ggdr.penalty(feats).mean()
    loss = torch.nn.functional.softplus(logits).mean() + penalty
    with torch.no_grad():
        for parameter, grad in zip(parameters, torch.autograd.grad(loss, parameters)):
            parameter -= 0.05 * grad
    penalties.append(penalty.item())
print(penalties[-1] < 0.9 * penalties[0], torch_utils.OWNER, metrics.fid.OWNER)
"""

USE_LIBRARY = """
import importlib, importlib.util, torch
from ggdr.metrics.fid import frechet_distance
from ggdr.metrics.manifold import precision_recall
from ggdr.stylegan2 import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from ggdr.stylegan2.augment.pipe import PIPES, AugmentPipe
from ggdr.stylegan2.task import StyleGAN2Task
from ggdr.torch_utils.ops.build import device_sources
from ggdr.torch_utils.pictures.images import make_grid

G = Generator(GeneratorConfig(8, z_dim=6, w_dim=5, mapping_num_layers=1, channel_base=32))
D = Discriminator(DiscriminatorConfig(8, channel_base=32))
print(*(path.name for device in ("cpu", "cuda") for path in device_sources(device)))
img = G(torch.randn(4, 6))
print(*D(AugmentPipe(PIPES["bgc"], p=0.3).sample(img, torch.Generator())(img)).shape)
for name in {absent}:
    assert importlib.util.find_spec(name) is None, name
for name in ("ggdr.clusters", "ggdr.label_images", "ggdr.stylegan2.snapshot"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        print(error)
"""


def test_the_plugin_trains_among_foreign_packages_with_the_names_of_ours(bare, foreign):
    (foreign / "train.py").write_text(TRAIN_TOYS)
    assert bare.output("python", "train.py", cwd=foreign) == "True others others\n"


def test_without_the_app_networks_work_and_the_rest_says_what_to_install(bare, foreign):
    (foreign / "click.py").unlink()
    lines = bare.output("python", "-c", USE_LIBRARY.format(absent=ABSENT), cwd=foreign).splitlines()
    assert lines == [
        "autograd.cpp bias_act.cpp conv3x3.cpp modulation.cpp upfirdn2d.cpp "
        "bias_act.cu demodulation.cu modulation.cu upfirdn2d.cu",
        "4 1",
        "ggdr.clusters needs scikit-learn: pip install scikit-learn",
        "ggdr.label_images needs Pillow: pip install pillow",
        "snapshots need safetensors: pip install safetensors",
    ]


@pytest.mark.parametrize("command", [["ggdr"], ["python", "-m", "ggdr"]], ids=["script", "module"])
def test_without_the_app_the_command_is_one_line_that_says_what_to_type(bare, foreign, command):
    result = bare.run(*command, "train", cwd=foreign)
    remedy = "in a copy of the project, type: pip install -e '.[app]'"
    assert result.returncode == 2
    assert result.stdout == f"ggdr: the command needs click, which is not installed here; {remedy}\n"


@pytest.mark.parametrize(
    "origin, line",
    [
        ({"dir_info": {}}, "'/{here}[app]'"),
        ({"dir_info": {"editable": True}}, "-e '/{here}[app]'"),
        ({"vcs_info": {"vcs": "git", "commit_id": "ab"}}, "'ggdr[app] @ git+file:///{here}'"),
        ({"vcs_info": {"vcs": "git", "requested_revision": "v1"}}, "'ggdr[app] @ git+file:///{here}@v1'"),
        ({"archive_info": {}}, "'ggdr[app] @ file:///{here}'"),
    ],
    ids=["folder", "editable", "clone", "revision", "archive"],
)
def test_what_to_type_names_where_the_project_was_installed_from(bare, tmp_path, origin, line):
    here = str(tmp_path).removeprefix("/")
    path = Path(bare.ggdr.locate_file(f"ggdr-{bare.ggdr.version}.dist-info")) / "direct_url.json"
    path.write_text(json.dumps({"url": f"file:///{here}", **origin}))
    try:
        result = bare.run("ggdr", "train", cwd=tmp_path)
    finally:
        path.unlink()
    assert result.stdout.rstrip("\n").endswith(f"; type: pip install {line.format(here=here)}")


# Beside everything.


def test_the_command_runs_among_foreign_packages_with_the_names_of_ours(full, foreign):
    for command in (["ggdr"], ["python", "-m", "ggdr"]):
        assert "train" in full.output(*command, "--help", cwd=foreign)
        assert "Train StyleGAN2-ADA" in full.output(*command, "train", "--help", cwd=foreign)


def test_torchrun_starts_the_installed_command(full, foreign, dataset_zip):
    options = ["--data", dataset_zip, "--outdir", "run", *TINY_RUN, "--dry-run"]
    torchrun = ["torchrun", "--standalone", "--nproc-per-node", 1, "--no-python", "ggdr"]
    output = full.output(*torchrun, "train", *options, cwd=foreign)
    settings = json.loads(output[output.index("{") : output.rindex("}") + 1])
    assert settings["data"]["num_images"] == 24 and not (foreign / "run").exists()


def test_in_the_folder_of_the_project_an_installed_module_says_how_to_run_it_there(full, source, tmp_path):
    assert "Train StyleGAN2-ADA" in full.output("ggdr", "train", "--help", cwd=source)
    result = full.run("python", "-m", "ggdr", "train", "--help", cwd=source)
    assert result.returncode == 2 and result.stdout.count("\n") == 1
    assert f"Python took {source}/ggdr in place of the installed ggdr; run it in another folder" in result.stdout
    editable = Environment(tmp_path / "env", build("build_editable", source, tmp_path / "wheel"))
    editable.add_everything()
    assert "Train StyleGAN2-ADA" in editable.output("python", "-m", "ggdr", "train", "--help", cwd=source)
    assert "train" in editable.output("ggdr", "--help", cwd=tmp_path)
