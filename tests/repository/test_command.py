# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The command where some of its packages are not installed, and beside folders of others with the names of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT


def run(*args, cwd, **env):
    return subprocess.run([sys.executable, *args], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True)


def without(package):
    """Code that runs the command as if a package were not installed."""
    return (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {package!r}:\n"
        f"            raise ModuleNotFoundError('absent', name={package!r})\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from ggdr.__main__ import main\n"
        "main()\n"
    )


@pytest.mark.parametrize("args", [["train"], ["--help"], []])
def test_a_missing_package_is_one_line_that_says_what_to_type(tmp_path, args):
    result = run("-c", without("click"), *args, cwd=tmp_path)
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    assert "the command needs click, which is not installed here; " in result.stderr
    assert "pip install" in result.stderr and "[app]" in result.stderr


def test_the_plugin_alone_says_that_it_is_alone(tmp_path):
    shutil.copytree(ROOT / "ggdr", tmp_path / "ggdr", ignore=shutil.ignore_patterns("__pycache__"))
    code = f"import runpy, sys; sys.path.insert(0, {str(tmp_path)!r}); runpy.run_module('ggdr', run_name='__main__')"
    result = run("-S", "-c", code, cwd=tmp_path, PYTHONPATH="")
    assert result.returncode == 2 and "is the plugin alone, and holds no command" in result.stderr, result.stderr


@pytest.mark.parametrize(
    "installed, fault",
    [(True, "Python took {0}/ggdr in place of the installed ggdr"), (False, "the project in {0} is not installed")],
)
def test_a_copy_of_the_project_says_why_it_holds_no_command(tmp_path, installed, fault):
    project, site = tmp_path / "project", tmp_path / "site"
    shutil.copytree(ROOT / "ggdr", project / "ggdr", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("scripts", "stylegan2"):
        (project / name).mkdir()
    (project / "pyproject.toml").touch()
    if installed:
        (site / "ggdr-0.1.0.dist-info").mkdir(parents=True)
        (site / "ggdr-0.1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: ggdr\nVersion: 0.1.0\n")
    result = run("-S", "-m", "ggdr", cwd=project, PYTHONPATH=str(site))
    assert result.returncode == 2 and result.stderr.startswith(f"ggdr: {fault.format(project)}; "), result.stderr
    assert result.stderr.endswith("type: pip install -e '.[app]'\n")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep a folder that a process is in")
def test_the_command_runs_in_a_folder_that_was_deleted(tmp_path):
    code = (
        "import os, sys\n"
        f"os.chdir({str(tmp_path)!r})\n"
        f"os.rmdir({str(tmp_path)!r})\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'ggdr', 'train', '--help'])\n"
    )
    result = run("-c", code, cwd=ROOT)
    assert result.returncode == 0 and "Train StyleGAN2-ADA" in result.stdout, result.stderr


def test_the_command_runs_beside_folders_with_the_names_of_ours(tmp_path):
    for name in ("torch_utils", "metrics", "scripts", "stylegan2", "translation"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('a foreign folder was imported')\n")
    (tmp_path / "click.py").write_text("raise SystemExit('a foreign file was imported')\n")
    result = run("-m", "ggdr", "train", "--help", cwd=tmp_path)
    assert result.returncode == 0 and "Train StyleGAN2-ADA" in result.stdout, result.stderr


def test_the_command_runs_in_the_folder_of_the_tests():
    result = run("-m", "ggdr", "--help", cwd=ROOT / "tests")
    assert result.returncode == 0 and "train" in result.stdout, result.stderr


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib")
def test_every_package_is_installed():
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {"ggdr"}
    for folder in ("stylegan2", "translation", "torch_utils", "metrics", "scripts"):
        found |= {
            f"ggdr.{'.'.join(path.parent.relative_to(ROOT).parts)}" for path in (ROOT / folder).rglob("__init__.py")
        }
    assert set(listed) == found


@pytest.mark.parametrize(
    "given, spins", [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_threads_that_wait_leave_the_cpu_to_others_unless_told_otherwise(tmp_path, monkeypatch, given, spins):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    code = (
        "import atexit, os, sys\n"
        "atexit.register(lambda: print('spins', os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules))\n"
        "sys.argv = ['ggdr', '--help']\n"
        "from ggdr.__main__ import main\n"
        "main()\n"
    )
    result = run("-c", code, cwd=tmp_path, **given)
    assert f"spins {spins} False" in result.stdout, result.stderr
