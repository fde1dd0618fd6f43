# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""How all plots look: colours, dashes, and matplotlib's settings. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ggdr.torch_utils.pictures.fonts import PILLOWS_OWN, dejavu, escape_missing
from ggdr.torch_utils.untrusted.text import printable

# Okabe and Ito's palette, told apart with every kind of colour vision; black comes last, yellow is left out.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1.5, 1, 1.5)))
STYLE = {
    "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#666666",
    "axes.grid": True, "grid.color": "#E3E3E3", "grid.linewidth": 0.7, "axes.axisbelow": True,
    "xtick.color": "#444444", "ytick.color": "#444444", "legend.frameon": False, "svg.fonttype": "none",
}  # fmt: skip


@contextmanager
def plot_style() -> Iterator[None]:
    """Within, matplotlib draws as it comes, and with `STYLE`.

    What a matplotlibrc asks for does not count: matplotlib takes that of the current folder, anyone's, which may start
    LaTeX.
    """
    from matplotlib import rc_context, rcdefaults, rcParams

    with rc_context():
        rcdefaults()
        rcParams.update(STYLE)
        yield


def plain_text(text: str) -> str:
    """A text of anyone as matplotlib shows it as it is: what lies between dollars would be a formula.

    Letters that its font has not are escaped; it would draw boxes, and warn of each.
    """
    lines = (escape_missing(printable(line), dejavu() or PILLOWS_OWN) for line in text.split("\n"))
    return "\n".join(lines).replace("$", r"\$")
