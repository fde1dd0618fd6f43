# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What an import found, for people."""

from __future__ import annotations

from ggdr.stylegan2.weights.common import ImportedNetworks

BUFFERS = ("resample_filter", "noise_const", "w_avg")  # values that are not trained


def tabulate_networks(result: ImportedNetworks) -> list[str]:
    """Name, size, parameters and classes of each network."""
    rows = [("network", "resolution", "parameters", "classes")]
    order = ("G_ema", "G", "D", "ggdr")
    for name, state in sorted(result.networks.items(), key=lambda item: (*order, item[0]).index(item[0])):
        config = result.D if name == "D" else result.G if name.startswith("G") else None
        size = f"{config.img_resolution}x{config.img_resolution}x{config.img_channels}" if config else ""
        if name == "ggdr":
            size = ", ".join(f"{res}x{res}" for res in _guides(result))
        classes = (str(config.c_dim) if config.c_dim else "none") if config else ""
        num = sum(value.numel() for key, value in state.items() if not key.endswith(BUFFERS))
        rows.append((name, size, f"{num:,}", classes))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return [
        f"{name:<{widths[0]}}  {size:<{widths[1]}}  {num:>{widths[2]}}  {classes}".rstrip()
        for name, size, num, classes in rows
    ]


def _guides(result: ImportedNetworks) -> list[int]:
    """Resolutions that the GGDR decoder predicts, as far as the settings tell."""
    try:
        guides = result.config()["training"]["regularizers"]["ggdr"]["guide_res"]
    except (KeyError, TypeError):
        return []
    return [res for res in guides if isinstance(res, int)] if isinstance(guides, list) else []


def list_gaps(result: ImportedNetworks) -> list[str]:
    """What cannot be done with networks that a file lacks."""
    notes = []
    if "G_ema" not in result.networks and "G" not in result.networks:
        notes.append("there is no generator, so that nothing can be generated")
    elif "G" not in result.networks:
        notes.append("there is no G; training would start from G_ema")
    if "D" not in result.networks:
        notes.append("there is no D, so that it cannot be trained further")
    return notes
