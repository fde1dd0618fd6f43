# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What commands print: names and texts of strangers' files are in it, and a terminal obeys control characters."""

from __future__ import annotations

import click

from ggdr.torch_utils.untrusted.text import visible


def say(text: str, *, err: bool = False) -> None:
    """A line on standard output, or on standard error, with control characters as escapes."""
    click.echo(visible(text), err=err)
