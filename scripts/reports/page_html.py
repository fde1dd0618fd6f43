# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""One HTML file from what a report shows: template, style, scripts and data, all of it inside."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Traversable

_SHARED = files(__package__) / "page"


@dataclass(frozen=True)
class PageFiles:
    """What a kind of page is made of, beside the frame, the style and the scripts that all have.

    Attributes:
        kind:     what its title ends in.
        sections: HTML of the sections that scripts fill.
        styles:   style sheets, after that of all pages.
        scripts:  scripts, after those of all pages.
    """

    kind: str
    sections: Traversable
    styles: Sequence[Traversable] = ()
    scripts: Sequence[Traversable] = ()


SCRIPTS = [_SHARED / name for name in ("elements.js", "plots.js", "viewer.js", "theme.js")]  # of all pages
REPORT = PageFiles(
    "GGDR report",
    _SHARED / "report.html",
    scripts=[_SHARED / name for name in ("curves.js", "charts.js", "samples.js", "sections.js", "page.js")],
)


def render(data: Mapping[str, Any], page: PageFiles = REPORT) -> str:
    """The page that shows `data`, a nest that JSON can hold with a "title".

    Nothing in `data` can run: scripts get it as JSON and make text of it, and the page's own policy lets no script
    run but ours and plotly's, known by their hashes, and nothing be fetched.
    """
    from plotly.offline import get_plotlyjs

    plotly = _for_inlining(get_plotlyjs())
    script = _for_inlining(_joined([*SCRIPTS, *page.scripts]))
    parts = {
        "title": html.escape(str(data["title"])),
        "kind": page.kind,
        "hashes": f"'sha256-{_sha256(plotly)}' 'sha256-{_sha256(script)}'",
        "style": _joined([_SHARED / "page.css", *page.styles]),
        "sections": _joined([page.sections]),
        "data": json_for_html(data),
        "plotly": plotly,
        "script": script,
    }
    # In one pass: what is filled in is not looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _joined([_SHARED / "page.html"]))


def _joined(sources: Sequence[Traversable]) -> str:
    return "\n".join(source.read_text(encoding="utf-8") for source in sources)


def json_for_html(data: Any) -> str:
    """JSON that stays inside its script element whatever the strings in it are."""
    try:
        text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(_finite(data), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(data: Any) -> Any:
    """The same, with None for numbers that JSON has no words for; only a damaged run has them."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    return [_finite(value) for value in data] if isinstance(data, (list, tuple)) else data


def _for_inlining(script: str) -> str:
    """JavaScript with nothing in it that would end its element, and with the line ends that browsers hash."""
    return script.replace("\r\n", "\n").replace("</script", "<\\/script")


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
