# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The findings of `ggdr doctor`, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_findings(report: Mapping[str, Any], console: Console) -> None:
    """Prints what `examine` returned."""
    versions, tools, ops = report["versions"], report["tools"], report["ops"]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")

    def row(name: str, text: str) -> None:
        grid.add_row(name, escape(text))

    row("System", f"{versions['system']}, Python {versions['python']}")
    row("Packages", f"ggdr {versions['ggdr']}, torch {versions['torch']}, numpy {versions['numpy']}")
    row("CUDA", f"torch: {versions['cuda'] or 'none'}, driver: {versions['driver'] or 'none'}")
    cpu, *gpus = report["devices"]
    row("CPU", f"{cpu['name']}, {cpu['cores']} cores, {cpu['threads']} threads; {' '.join(cpu['instruction_sets'])}")
    for gpu in gpus:
        row(gpu["device"], f"{gpu['name']}, {gpu['memory_gib']} GiB, compute capability {gpu['capability']}")
    for name, tool in tools.items():
        row(name, "not found" if tool is None else f"{tool['version']} ({tool['path']})")
    row("Cache", ops["cache"] or "none")
    row("GGDR_OPS", ops["mode"] or "unknown")
    for library in report["libraries"]:
        built_now = f"built now, in {library['seconds']} s"
        states = {"built now": built_now, "not built": "not built yet; the first use builds it"}
        row(f"{library['device'].upper()} library", states.get(library["state"], library["state"]))
    console.print(grid)

    if report["operations"]:
        table = Table("operation", "device", "state", "error / allowed", "speed-up", box=None, padding=(0, 2, 0, 0))
        for op in report["operations"]:
            color = {"works": "green", "not built": "yellow"}.get(op["state"], "red")
            error = "" if op["error"] is None else f"{op['error']:.0e} / {op['tolerance']:.0e}"
            speedup = "" if op["speedup"] is None else f"{op['speedup']:.1f}x"
            table.add_row(op["name"], op["device"], f"[{color}]{op['state']}[/]", error, speedup)
        console.print()
        console.print(table)

    console.print()
    for problem in report["problems"]:
        color, word = ("red", "Broken") if problem["broken"] else ("yellow", "Advice")
        console.print(f"[{color}]{word}:[/] {escape(problem['problem'])}")
        console.print(f"  To mend it: {escape(problem['remedy'])}")
    if report["ok"]:
        console.print("[green]All that can work here works.[/]")
