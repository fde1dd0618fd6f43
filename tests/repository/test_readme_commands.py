# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The README's commands, one after the other as they stand there, in one folder, on small images and networks."""

from __future__ import annotations

import re
import shlex
import shutil
import urllib.request
import webbrowser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ggdr.scripts.cli import main
from ggdr.scripts.studies import runner
from ggdr.torch_utils import downloads
from tests.conftest import ROOT
from tests.dataset_files import cifar_tar
from tests.published_files import pickled, small_networks, write_pickle
from tests.repository.test_docs import PAGES, blocks
from tests.scripts.test_dataset_command import cifar_members

# What makes a command short; the options stand behind those of the README, and so replace them.
TINY = ("--cfg", "demo", "--channel-max", "4", "--batch", "8", "--device", "cpu", "--kimg", "0.016", "--tick", "0.008")
SHORT = {
    "train": (*TINY, "--snap", "1", "--channel-base", "256"),
    "translate train": ("--channels", "4", *TINY[-8:], "--cfg", "cpu"),
    "compare": (*TINY, "--channel-base", "64"),
    "project": ("--steps", "2"),
    "interpolate": ("--frames", "2"),
    "generate": ("--batch", "8"),
}
# Words of commands that end in a message here: what is downloaded, or takes more images than there are.
REFUSED = {"ffhq256": "ffhq256", "fid50k_full": "Inception", "fid10k_full": "needs 10000 fakes, got 16"}


def readme_commands() -> list[list[str]]:
    """Words of each `ggdr` command; of those with torchrun what each process runs."""
    lines = [line for code in blocks(PAGES[0], "bash") for line in code.replace("\\\n", " ").splitlines()]
    found = [shlex.split(line, comments=True) for line in lines]
    return [words[words.index("ggdr") + 1 :] for words in found if "ggdr" in words]


def write_images(folder: Path, num: int, size: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(num):
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{i}.png")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with what a user has at the start; nothing is downloaded, and no browser opens."""

    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(downloads, "PAUSES", ())
    monkeypatch.setenv("GGDR_OPS", "reference")
    monkeypatch.setattr(webbrowser, "open", lambda *args, **kwargs: True)
    monkeypatch.setattr(runner, "CHILD", "tests.toy_run")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    images = np.random.default_rng(1).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    cifar_tar(tmp_path / "cifar-10-python.tar.gz", **cifar_members(images, [i % 3 for i in range(40)]))
    write_images(tmp_path / "ffhq" / "images1024x1024", 16, 256)
    write_images(tmp_path / "photos", 16, 160)
    write_images(tmp_path / "samples", 16, 128)
    Image.new("RGB", (64, 64), "red").save(tmp_path / "photo.jpg")
    G, D = small_networks()
    write_pickle(tmp_path / "stylegan2-ada.pkl", {"G": pickled(G), "D": pickled(D), "G_ema": pickled(G)})
    return tmp_path


def test_the_commands_of_the_readme_run_in_their_order(home):
    ran = []
    for words in readme_commands():
        if words[0] == "doctor":
            continue  # builds and times operations; it has tests of its own
        if "faces256.zip" in words:
            shutil.copy("ffhq256.zip", "faces256.zip")  # the reader's own images
        for word in words:  # a snapshot that takes a longer run than this one
            if re.fullmatch(r"runs/\w+/network-snapshot-\d+\.safetensors", word) and not Path(word).exists():
                shutil.copy(max(Path(word).parent.glob("network-snapshot-*")), word)
        name = " ".join(words[:2]) if words[0] == "translate" else words[0]
        result = CliRunner().invoke(main, [*words, *SHORT.get(name, ())], catch_exceptions=False)
        names = [name for word in words for name in word.split(",")]
        fault = next((REFUSED[name] for name in names if name in REFUSED), None)
        shown = shlex.join(words)
        if fault is not None:
            assert result.exit_code == 2 and fault in result.output, f"{shown}: {result.output}"
        else:
            assert result.exit_code == 0, f"{shown}: {result.output}"
        ran.append(words[0])
    assert {"dataset", "train", "curves", "report", "generate", "clusters", "metrics", "compare", "export"} <= set(ran)
    for made in (
        "curves.png",
        "runs/cifar/report.html",
        "out",
        "clusters",
        "walk.mp4",
        "projected",
        "generator.onnx",
        "coloured",
    ):
        assert (home / made).exists(), made
