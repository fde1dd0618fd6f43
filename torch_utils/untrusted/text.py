# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Text from files of others, for messages: a terminal obeys control characters, and lines may be endless."""

from __future__ import annotations

import unicodedata

MOST = 200  # characters


def shortened(text: str, most: int = 25) -> str:
    """The text in one line of `most` characters at most, for pictures.

    >>> shortened("a name of many letters", 10)
    'a nam…ters'
    """
    text = printable(text)
    return text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - (most - 1) // 2 :]}"


def printable(text: object, most: int = MOST) -> str:
    """The text in one line, control characters and the like as escapes, the middle of a long one left out.

    >>> printable("a\\x1b[2Jb\\n")
    'a\\\\x1b[2Jb\\\\n'
    """
    text = str(text)
    if len(text) > most:
        text = f"{text[: most // 2]}...{text[-most // 2 :]}"
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def error_text(error: Exception, most: int = MOST) -> str:
    """What an exception says, in one line, without the number and the file's name of an OSError."""
    return printable(getattr(error, "strerror", None) or error, most)


def visible(text: str) -> str:
    """A message as a terminal may get it: control characters as escapes; line ends and spaces of all kinds stay.

    >>> visible("a\\x1b[2Jb\\nc")
    'a\\\\x1b[2Jb\\nc'
    """
    return "".join(c if c.isprintable() or c == "\n" or unicodedata.category(c) == "Zs" else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode()
