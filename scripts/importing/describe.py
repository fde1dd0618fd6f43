# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What an import found, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ggdr.scripts.importing.translators import ImportedTranslator
from ggdr.stylegan2.weights.common import ImportedNetworks
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.config import NetworkConfig

BUFFERS = ("resample_filter", "noise_const", "w_avg")  # values that are not trained
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def tabulate_networks(
    result: ImportedNetworks | ImportedTranslator, origin: Mapping[str, Any] | None = None
) -> list[str]:
    """Name, size, parameters and classes of each network; of translators kind, channels, parameters and files.

    Args:
        origin: of a translator, as `import_translator` returns it.
    """
    if isinstance(result, ImportedTranslator):
        return _tabulate_translator(result, origin or {})
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
    return _aligned(rows)


def _aligned(rows: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """Lines of a table whose third column is of numbers."""
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return [
        f"{first:<{widths[0]}}  {second:<{widths[1]}}  {num:>{widths[2]}}  {last}".rstrip()
        for first, second, num, last in rows
    ]


def _tabulate_translator(result: ImportedTranslator, origin: Mapping[str, Any]) -> list[str]:
    configs, rows = result.configs, [("network", "kind", "parameters", "channels")]
    for name, state in result.networks.items():
        num = sum(value.numel() for key, value in state.items() if not key.endswith(STATISTICS))
        kind, channels = (configs[name].network, _channels(configs[name])) if name in configs else ("", "")
        rows.append((name, kind, f"{num:,}", channels))
    files = [
        f"{name}: {printable(file['file'])}, SHA-256 {file['sha256']}" for name, file in origin.get("files", {}).items()
    ]
    return [*_aligned(rows), *files]


def _channels(config: NetworkConfig) -> str:
    """What it takes, and what it makes of it."""
    taken = getattr(config, "in_channels", getattr(config, "img_channels", 3))
    made = getattr(config, "out_channels", getattr(config, "img_channels", None))
    return str(taken) if made is None else f"{taken} to {made}"


def _guides(result: ImportedNetworks) -> list[int]:
    """Resolutions that the GGDR decoder predicts, as far as the settings tell."""
    try:
        guides = result.config()["training"]["regularizers"]["ggdr"]["guide_res"]
    except (KeyError, TypeError):
        return []
    return [res for res in guides if isinstance(res, int)] if isinstance(guides, list) else []


def list_gaps(result: ImportedNetworks | ImportedTranslator) -> list[str]:
    """What cannot be done with networks that a file lacks."""
    notes = []
    if isinstance(result, ImportedTranslator):
        has_D = any(name.startswith("D") for name in result.networks)
        return notes if has_D else ["there is no discriminator, so that it translates but cannot be trained further"]
    if "G_ema" not in result.networks and "G" not in result.networks:
        notes.append("there is no generator, so that nothing can be generated")
    elif "G" not in result.networks:
        notes.append("there is no G; training would start from G_ema")
    if "D" not in result.networks:
        notes.append("there is no D, so that it cannot be trained further")
    return notes
