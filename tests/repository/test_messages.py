# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The messages that the pages explain are messages of the program."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "docs" / "troubleshooting.md", ROOT / "docs" / "plugin.md"]
# Python's own, and a program's name.
OTHERS = {"cannot import name 'GGDR' from 'ggdr' (unknown location)", "No module named 'ggdr.stylegan2'", "pip"}
GAP = "…"  # names and numbers, on the pages; values that are filled in, in the sources
MOST_FILLED = 4  # words of a page that one value may stand for


def words(text: str) -> tuple[str, ...]:
    """Words and gaps, without punctuation."""
    return tuple(re.findall(rf"{GAP}|\w(?:[\w.+-]*\w)?", text))


@cache
def printed() -> list[tuple[tuple[str, ...], frozenset[str]]]:
    """All texts of the sources, and the words of each."""
    found = set()
    for folder in ("ggdr", "metrics", "scripts", "stylegan2", "torch_utils", "translation"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else f" {GAP} " for part in node.values)
                    found.add(words("".join(parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(words(node.value))
    return [(text, frozenset(text) - {GAP}) for text in sorted(found)]


def num_alike(shown: tuple[str, ...], text: tuple[str, ...]) -> int:
    """How many words of `shown` stand in the text, of which it is a part; 0 if it is none."""

    @cache
    def best(i: int, j: int) -> float:
        """Of those from the i-th on, in the text from its j-th on; negative if they do not fit."""
        if i == len(shown):
            return 0
        if shown[i] == GAP:
            return max(best(i + 1, k) for k in range(j, len(text) + 1))
        if j == len(text):
            return -1000
        if text[j] == GAP:
            return max(best(k, j + 1) for k in range(i, min(i + MOST_FILLED, len(shown)) + 1) if GAP not in shown[i:k])
        return 1 + best(i + 1, j + 1) if shown[i] == text[j] else -1000

    return int(max([0, *(best(0, j) for j in range(len(text)))]))


def is_printed(message: str) -> bool:
    shown = words(message)
    num = sum(word != GAP for word in shown)
    needed = max(min(num, 2), num * 6 // 10)
    return any(num_alike(shown, text) >= needed for text, its in printed() if len(its.intersection(shown)) >= needed)


def messages(text: str) -> Iterator[str]:
    """What stands in backquotes as a message, in tables under "what you see" or "message"."""
    for table in re.findall(r"^\| (?:what you see|message).* \|.*\n\| --- .*\n((?:\|.*\n)+)", text, flags=re.M):
        for line in table.splitlines():
            cell = re.sub(r" in `[^`]*`", "", line.split(" | ")[0])  # the command that says it
            yield from re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_messages_of_a_page_are_printed(page):
    found = [message for message in messages(page.read_text()) if message not in OTHERS]
    assert len(found) >= 4
    assert [message for message in found if not is_printed(message)] == []


def test_a_message_that_nobody_prints_is_noticed():
    assert is_printed("… already holds a run") and is_printed("no images in this folder")
    for message in ("… already contains a run", "no pictures in this folder", "the run fell off a table"):
        assert not is_printed(message)
