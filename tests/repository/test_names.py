# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The imports that README, docs, examples and model cards show are of `ggdr`, and of what is there."""

from __future__ import annotations

import ast
import re

import pytest

from ggdr.scripts.reports.card_facts import read_facts
from ggdr.scripts.reports.model_card import CardText, model_card
from ggdr.torch_utils.checkpoint import load_snapshot
from tests.conftest import ROOT
from tests.repository.test_docs import PAGES, blocks
from tests.tiny import save_tiny, tiny_generator

FOLDERS = ("ggdr", "stylegan2", "translation", "torch_utils", "metrics", "scripts")
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
# An import or a run of one of the folders by the name that it has in the repository alone.
INNER = "(stylegan2|translation|torch_utils|metrics|scripts)"
INNER_IMPORT = re.compile(
    rf"\bfrom {INNER}(\.\w+)* import\b|^[\s\"'>]*import {INNER}\b|python3? (-m )?{INNER}[./]", flags=re.M
)


def run_imports(code):
    """Runs each import of this project in a text of Python; ImportError for what is not there."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and re.match(r"(from|import) ggdr\b", ast.unparse(node)):
            exec(ast.unparse(node), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_import_what_is_there(page):
    for code in blocks(page, "python"):
        run_imports(code)


def test_some_pages_import_from_packages_below_ggdr():
    assert "from ggdr.stylegan2 import load_generator" in PAGES[0].read_text()
    with pytest.raises(ImportError, match="Elsewhere"):
        run_imports("import torch\nfrom ggdr.stylegan2 import Generator, Elsewhere")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_import_what_is_there(path):
    run_imports(path.read_text())


@pytest.mark.parametrize("c_dim", [0, 3])
def test_a_model_card_imports_what_is_there(tmp_path, c_dim):
    path = save_tiny(tmp_path / "network.safetensors", tiny_generator(c_dim=c_dim))
    card = tmp_path / "README.md"
    card.write_text(model_card(read_facts(load_snapshot(path)), CardText("A title")))
    (code,) = blocks(card, "python")
    assert "from ggdr" in code
    run_imports(code)
    assert not INNER_IMPORT.search(card.read_text())


def test_nothing_shows_an_import_by_a_name_that_is_not_installed():
    for text in ("from torch_utils.ops import set_ops", ">>> import metrics", "python -m scripts.train"):
        assert INNER_IMPORT.search(text), text
    sources = [path for folder in (*FOLDERS, "benchmarks") for path in (ROOT / folder).rglob("*.*")]
    for path in [*PAGES, *EXAMPLES, *sources, ROOT / "Makefile"]:
        if path.suffix in (".py", ".md", ".js", ".html", ""):
            assert not INNER_IMPORT.search(path.read_text()), path.relative_to(ROOT)
