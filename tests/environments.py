# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Virtual environments with a wheel of this project, and no more of other packages than a test wants."""

from __future__ import annotations

import os
import re
import site
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest


class Environment:
    """A virtual environment with an unpacked wheel of this project, and the scripts of the wheel."""

    def __init__(self, folder, wheel):
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        (self.site,) = folder.glob("lib/python*/site-packages")
        with zipfile.ZipFile(wheel) as file:
            file.extractall(self.site)
        (dist_info,) = self.site.glob("ggdr-*.dist-info")
        self.ggdr = Distribution.at(dist_info)
        self.add_scripts(self.ggdr)

    def add_scripts(self, dist):
        """Writes the scripts of a distribution, as installers do."""
        for entry in dist.entry_points.select(group="console_scripts"):
            path = self.folder / "bin" / entry.name
            code = f"import sys\nfrom {entry.module} import {entry.attr}\nsys.exit({entry.attr}())\n"
            path.write_text(f"#!{self.folder}/bin/python\n{code}")
            path.chmod(0o755)

    def link(self, name):
        """Links an installed distribution, and all that it requires and that is installed."""
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            return  # for another platform
        if dist.files is None:
            pytest.skip(f"{name} was installed without a list of its files")
        tops = {Path(file).parts[0] for file in dist.files if file.suffix != ".pth"} - {"..", "/", "__pycache__"}
        if all((self.site / top).exists() for top in tops):
            return
        for top in tops:
            if not (self.site / top).exists():
                (self.site / top).symlink_to(dist.locate_file(top))
        for requirement in dist.requires or ():
            if "extra" not in requirement.partition(";")[2]:
                self.link(re.match(r"[\w.-]+", requirement)[0])

    def run(self, *command, cwd):
        """Runs a program of the environment; standard output and error in one."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        path = os.pathsep.join([f"{self.folder}/bin", os.environ.get("PATH", os.defpath)])
        return subprocess.run(
            [f"{self.folder}/bin/{command[0]}", *map(str, command[1:])],
            cwd=cwd,
            env={**inherited, "PATH": path, "OMP_NUM_THREADS": "1", "GGDR_OPS": "reference"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
        )

    def output(self, *command, cwd):
        """What a program prints that ends well."""
        result = self.run(*command, cwd=cwd)
        assert result.returncode == 0, result.stdout
        return result.stdout

    def add_everything(self):
        """Makes all packages that the tests run with importable, after those that are in the environment."""
        folders = dict.fromkeys([*sys.path, *site.getsitepackages()])
        others = [folder for folder in folders if Path(folder).name in ("site-packages", "dist-packages")]
        (self.site / "others.pth").write_text("\n".join(others))
        self.add_scripts(distribution("torch"))
