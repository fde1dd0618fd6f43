# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, and what an import may cost."""

from __future__ import annotations

import ast
import sys

import pytest

from tests.conftest import ROOT, python

OURS = {"ggdr", "stylegan2", "torch_utils", "metrics", "translation", "scripts", "tests"}
ALLOWED = {
    "ggdr": set(),
    "torch_utils": set(),
    "stylegan2": {"torch_utils"},
    "metrics": {"torch_utils"},
    "translation": {"torch_utils"},
}
PLUGIN_MAY_USE = {"torch", "numpy", "sklearn", "scipy", "PIL"}  # scikit-learn brings scipy


def imported(path) -> set[str]:
    """Top-level names of all imports in a file, also of those inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_know_only_what_lies_below_them(package):
    for path in (ROOT / package).rglob("*.py"):
        extra = (imported(path) & OURS) - {package} - ALLOWED[package]
        assert not extra, f"{path.relative_to(ROOT)} imports {extra}"


def test_the_plugin_needs_nothing_but_torch_numpy_sklearn_scipy_and_pillow():
    for path in (ROOT / "ggdr").rglob("*.py"):
        extra = imported(path) - set(sys.stdlib_module_names) - PLUGIN_MAY_USE - {"ggdr"}
        assert not extra, f"{path.relative_to(ROOT)} imports {extra}"


def test_imports_load_nothing_heavy():
    code = (
        "import sys, ggdr, stylegan2.task, torch_utils.loop, torch_utils.data, torch_utils.runlog\n"
        "print(sorted({'matplotlib', 'tensorboard', 'sklearn', 'scipy', 'lmdb'} & set(sys.modules)))"
    )
    assert python("-c", code).communicate()[0].strip() == "[]"


def test_help_does_not_import_torch():
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom scripts.cli import COMMANDS, main\n"
        "for args in [[], *([name] for name in COMMANDS)]:\n"
        "    result = CliRunner().invoke(main, [*args, '--help'])\n"
        "    assert result.exit_code == 0 and 'Example' in result.output, result.output\n"
        "print('torch' in sys.modules)"
    )
    assert python("-c", code).communicate()[0].strip() == "False"
