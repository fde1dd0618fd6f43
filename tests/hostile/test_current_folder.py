# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Files beside downloaded images, with names of Python's modules or of settings, have no say where a command runs."""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing import util
from pathlib import Path

import pytest

from ggdr.torch_utils import child_python
from ggdr.torch_utils.child_python import keep_current_folder_out, module_command
from ggdr.torch_utils.ops import toolchain
from tests.conftest import ROOT
from tests.dataset_files import RGB, encode

MODULES = ("multiprocessing", "runpy", "ctypes", "signal", "threading", "platform", "ninja", "ggdr")
MARK = "open(__file__ + '.executed', 'w')\n"

COMMAND = """
import sys
from ggdr.__main__ import main
if __name__ == "__main__":
    main()
"""
WORKERS = """
from ggdr.torch_utils.child_python import keep_current_folder_out
from ggdr.torch_utils.data.workers import map_in_order
if __name__ == "__main__":
    keep_current_folder_out()
    print(list(map_in_order(len, ["a", "bb"], 1)))
"""


@pytest.fixture
def photos(tmp_path) -> Path:
    """A folder of someone's images, and of modules."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(encode(RGB[0]))
    for name in MODULES:
        (folder / f"{name}.py").write_text(MARK)
    return folder


def run_in(folder: Path, script: str, *words: str) -> str:
    """What a script elsewhere prints that runs in a folder, as the installed command does."""
    path = folder.with_name("script.py")
    path.write_text(script)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, str(path), *words],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def executed(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.executed")]


def test_workers_take_no_module_from_the_current_folder(photos):
    assert run_in(photos, WORKERS).split() == ["[1,", "2]"] and not executed(photos)


def test_the_command_keeps_it_from_all_its_processes(photos):
    for i in range(256):  # more than one worker converts at once
        (photos / f"{i}.png").write_bytes(encode(RGB[0]))
    run_in(photos, COMMAND, "dataset", ".", "../out.zip", "--workers", "2")
    assert (photos.parent / "out.zip").is_file() and not executed(photos)


def test_modules_are_started_without_it(photos, monkeypatch):
    for variable in ("", "1"):
        monkeypatch.setenv("PYTHONSAFEPATH", variable)
        command = [*module_command("json.tool"), "--help"]
        done = subprocess.run(command, cwd=photos, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "usage" in done.stdout and not executed(photos), done.stderr


def test_ninja_is_started_without_it(monkeypatch):
    monkeypatch.setattr(toolchain.shutil, "which", lambda name, path=None: None)
    monkeypatch.setattr(toolchain, "find_spec", lambda name: name == "ninja")
    assert list(toolchain.find_ninja("cpu")) == module_command("ninja")


def test_python_3_10_isolates_workers(monkeypatch):
    """It does not know PYTHONSAFEPATH."""
    monkeypatch.setattr(child_python.sys, "version_info", (3, 10, 0))
    monkeypatch.setattr(util, "_args_from_interpreter_flags", lambda: ["-B"])
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    keep_current_folder_out()
    assert util._args_from_interpreter_flags() == ["-B", "-I"] and os.environ["PYTHONSAFEPATH"] == "1"


def test_a_matplotlibrc_starts_no_latex():
    """matplotlib reads the one in the current folder before all others."""
    import matplotlib

    from ggdr.torch_utils.pictures.plot_style import STYLE, plot_style

    with matplotlib.rc_context({"text.usetex": True, "text.latex.preamble": r"\input{/etc/passwd}"}):
        with plot_style():
            assert not matplotlib.rcParams["text.usetex"] and not matplotlib.rcParams["text.latex.preamble"]
            assert matplotlib.rcParams["font.size"] == STYLE["font.size"]
        assert matplotlib.rcParams["text.usetex"]
