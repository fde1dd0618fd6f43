# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Any text as Markdown that shows it as it is, and values as YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any


def md(text: Any) -> str:
    """Any text as one line of Markdown that shows it as it is."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", line).replace("://", ":\\//")


def code(text: Any) -> str:
    """Any text as code within a line or a cell of a table."""
    line = "".join(c if c.isprintable() else " " for c in str(text)).replace("|", "\\|")
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    pad = " " if "`" in line else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Two columns, of Markdown; empty without rows."""
    lines = [f"| {name} | {value} |" for name, value in rows]
    return "\n".join(["| | |", "| --- | --- |", *lines]) if lines else ""


def section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def yaml_lines(value: Any) -> list[str]:
    """Lines of YAML for nested dicts and lists; texts and numbers are written as JSON is, which is YAML too."""
    if isinstance(value, Mapping):
        lines = []
        for name, item in value.items():
            nested = isinstance(item, (Mapping, list))
            inner = yaml_lines(item)
            lines += [f"{name}:", *(f"  {line}" for line in inner)] if nested else [f"{name}: {inner[0]}"]
        return lines
    if isinstance(value, list):
        return [("- " if i == 0 else "  ") + line for item in value for i, line in enumerate(yaml_lines(item))]
    text = json.dumps(value, ensure_ascii=False)
    return ["".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in text)]
