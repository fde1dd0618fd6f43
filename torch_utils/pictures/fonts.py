# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Fonts that have the letters of a text: Pillow's own, DejaVu, which comes with matplotlib, and what the system has."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

PILLOWS_OWN = ""  # stands for the font inside Pillow
# What systems have for other scripts than Latin, Greek and Cyrillic; Pillow looks in their folders of fonts.
SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "DroidSansFallbackFull.ttf", "wqy-microhei.ttc",
    "wqy-zenhei.ttc", "NotoSansArabic-Regular.ttf", "NotoSansDevanagari-Regular.ttf", "NotoSansThai-Regular.ttf",
    "unifont.otf", "unifont.ttf", "Arial Unicode.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc",
    "msyh.ttc", "YuGothM.ttc", "malgun.ttf", "Nirmala.ttc", "segoeui.ttf", "arial.ttf",
)  # fmt: skip


class Lettering(NamedTuple):
    """A text, and a font that has its letters; those that no font here has are escaped, as `\\u732b`."""

    text: str
    font: FreeTypeFont


def lettering(text: str, size: float) -> Lettering:
    """How to draw a text, of one line or several, `size` pixels high."""
    sources = font_sources()
    for source in sources:
        if has_letters(source, text):
            return Lettering(text, _load(source, size))
    widest = max(sources, key=lambda source: sum(map(_drawn_by(source), text)))
    return Lettering(escape_missing(text, widest), _load(widest, size))


def can_draw(text: str) -> bool:
    """Whether some font here has all letters of a text."""
    return any(has_letters(source, text) for source in font_sources())


def has_letters(source: str, text: str) -> bool:
    """Whether a font has all letters of a text."""
    return all(map(_drawn_by(source), text))


def escape_missing(text: str, source: str) -> str:
    """The text, with escapes for letters that a font has not."""
    is_drawn = _drawn_by(source)
    return "".join(c if is_drawn(c) else c.encode("unicode_escape").decode() for c in text)


def font_sources() -> tuple[str, ...]:
    """Fonts to look in, in this order: Pillow's own, the one of plots, and those of the system."""
    plots = dejavu()
    return (PILLOWS_OWN, *([plots] if plots else []), *_system_fonts())


@lru_cache(maxsize=1)
def dejavu() -> str | None:
    """The font that matplotlib draws with; None where matplotlib is not installed."""
    spec = find_spec("matplotlib")
    path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf" if spec and spec.origin else None
    return str(path) if path and path.exists() else None


@lru_cache(maxsize=1)
def _system_fonts() -> tuple[str, ...]:
    return tuple(name for name in SYSTEM_FONTS if _exists(name))


def _exists(name: str) -> bool:
    try:
        _load(name, 16)
    except OSError:
        return False
    return True


@lru_cache(maxsize=64)
def _load(source: str, size: float) -> FreeTypeFont:
    """Raises OSError if there is no such font."""
    from PIL import ImageFont

    return ImageFont.load_default(size=size) if source == PILLOWS_OWN else ImageFont.truetype(source, size)


def _drawn_by(source: str):
    """A function that says whether a font has a letter."""
    return lambda letter: letter.isspace() or _has_letter(source, letter)


@lru_cache(maxsize=2**16)
def _has_letter(source: str, letter: str) -> bool:
    # A letter that is not there looks as one that no font has.
    return letter.isprintable() and _look(source, letter) != _look(source, "\U0010fffe")


def _look(source: str, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = _load(source, 16).getmask(letter)
    return mask.size, bytes(mask)
