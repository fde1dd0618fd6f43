# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What all benchmarks share: options, the progress bar, and where and with what they ran."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import click

from ggdr.scripts.terminal import say
from ggdr.torch_utils.data.workers import cpu_count

resolution_option = click.option(
    "--resolution",
    type=click.Choice([str(2**i) for i in range(3, 11)]),
    default="32",
    metavar="PIXELS",
    help="Side of the drawn images, a power of two from 8 to 1024.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error if that is a terminal, else its label; yields what moves it by one of `total` steps."""
    with click.progressbar(length=total, label=label, file=sys.stderr) as bar:
        yield lambda: bar.update(1)


def show(text: str, result: Mapping[str, Any], as_json: bool) -> None:
    """Prints a benchmark's outcome; with `as_json` its last line is `result` as one JSON object."""
    say(text)
    if as_json:
        say(json.dumps(result, allow_nan=False))


def describe_machine(*packages: str) -> dict[str, str | int]:
    """The processor and its cores, the system, and the versions of Python, this project and some packages."""
    from ggdr.torch_utils.ops.toolchain import cpu_name

    found: dict[str, str | int] = {
        "processor": cpu_name(),
        "cpus": cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    return found | {name: version(name) for name in ("ggdr", *packages)}


def peak_resident_mib() -> float | None:
    """The most memory that this process ever held, in MiB; None on a system that does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
