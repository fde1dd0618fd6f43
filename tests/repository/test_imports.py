# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, and what an import may cost."""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from ggdr.scripts.cli import COMMANDS
from tests.conftest import ROOT, python

# Each folder, and which of its siblings it may import. Only `scripts` knows them all.
ALLOWED = {
    "ggdr": set(),
    "torch_utils": set(),
    "stylegan2": {"torch_utils"},
    "translation": {"torch_utils"},
    "metrics": {"torch_utils"},
    "scripts": {"ggdr", "torch_utils", "stylegan2", "translation", "metrics"},
}
# The modules of commands that another module may import: a group takes in its commands, and the entry point the group.
# `cli` imports those of all others by their names, when they run.
GROUPS = {
    "ggdr.__main__": {"ggdr.scripts.cli"},
    "ggdr.scripts.bench": {f"ggdr.scripts.benches.{name}" for name in ("converter", "loader", "train")},
    "ggdr.scripts.segmenter": {f"ggdr.scripts.segmenting.{name}" for name in ("test", "train")},
    "ggdr.scripts.translate": {
        f"ggdr.scripts.translating.{name}" for name in ("apply", "pairs", "remove_domain", "sheet", "train")
    },
}
PLUGIN_MAY_USE = {"torch", "numpy", "sklearn", "scipy", "PIL"}  # scikit-learn brings scipy


def imported(path) -> set[str]:
    """Dotted names of all modules that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def modules() -> dict[str, Path]:
    """All modules of the packages, by the dotted names that they are imported by."""
    found = {}
    for folder in ALLOWED:
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            names = parts if folder == "ggdr" else ("ggdr", *parts)
            found[".".join(names).removesuffix(".__init__")] = path
    return found


def is_command(path: Path) -> bool:
    """Whether a file defines a command of click."""
    decorators = [
        decorator.func
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call)
    ]
    return any(isinstance(func, ast.Attribute) and func.attr in ("command", "group") for func in decorators)


def folder_of(name: str) -> str:
    """The folder of this repository that an imported module is in, or the package of others."""
    first, second = (name.split(".") + [""])[:2]
    return second if first == "ggdr" and second in ALLOWED else first


@pytest.mark.parametrize("folder", ALLOWED)
def test_folders_know_only_what_lies_below_them(folder):
    for path in (ROOT / folder).rglob("*.py"):
        if path == ROOT / "ggdr" / "__main__.py":
            continue  # the command's entry point
        names = {folder_of(name) for name in imported(path)} & {*ALLOWED, "tests", "benchmarks"}
        # `from ggdr import X` names the package that all of them are in.
        extra = names - {folder} - ALLOWED[folder] - ({"ggdr"} if "ggdr" in imported(path) else set())
        assert not extra, f"{path.relative_to(ROOT)} imports {extra}"


def test_nothing_imports_a_command():
    ours = modules()
    commands = {name for name, path in ours.items() if is_command(path)}
    assert {f"ggdr.scripts.{name.replace('-', '_')}" for name in COMMANDS} < commands
    others = {str(path): path for folder in ("benchmarks", "examples") for path in (ROOT / folder).glob("*.py")}
    for name, path in {**ours, **others}.items():
        extra = imported(path) & commands - GROUPS.get(name, set())
        assert not extra, f"{name} imports {extra}"


def test_imports_have_no_cycle():
    ours = modules()
    graph = {}
    for name, path in ours.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= {other if other in ours else node.module for other in found}
        graph[name] = names & ours.keys()
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_private_names_stay_in_their_folder():
    for name, path in modules().items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for other in imported(path):
            parts = other.split(".")
            private = [i for i, part in enumerate(parts) if part.startswith("_") and not part.startswith("__")]
            if parts[0] == "ggdr" and private:
                owner = ".".join(parts[: private[0]])
                assert package in (owner, owner.rpartition(".")[0]), f"{name} imports {other}"


def test_the_plugin_needs_nothing_but_torch_numpy_sklearn_scipy_and_pillow():
    for path in (ROOT / "ggdr").rglob("*.py"):
        names = {name.split(".")[0] for name in imported(path)}
        extra = names - set(sys.stdlib_module_names) - PLUGIN_MAY_USE - {"ggdr"}
        assert not extra, f"{path.relative_to(ROOT)} imports {extra}"


def test_imports_load_nothing_heavy():
    code = (
        "import sys, ggdr.regularizer, ggdr.stylegan2.task, ggdr.torch_utils.loop, ggdr.torch_utils.data.loader\n"
        "import ggdr.torch_utils.runlog\n"
        "print(sorted({'matplotlib', 'tensorboard', 'sklearn', 'scipy', 'lmdb'} & set(sys.modules)))"
    )
    assert python("-c", code).communicate()[0].strip() == "[]"


def test_help_does_not_import_torch():
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom ggdr.scripts.cli import COMMANDS, main\n"
        "for args in [[], *([name] for name in COMMANDS)]:\n"
        "    result = CliRunner().invoke(main, [*args, '--help'])\n"
        "    assert result.exit_code == 0 and 'Example' in result.output, result.output\n"
        "print('torch' in sys.modules)"
    )
    assert python("-c", code).communicate()[0].strip() == "False"
