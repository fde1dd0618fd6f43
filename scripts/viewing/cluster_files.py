# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The files that `ggdr clusters` writes."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ggdr.label_images import label_image
from ggdr.scripts.viewing.cluster_sheets import NetworkView
from ggdr.torch_utils.atomic_write import atomic_write
from ggdr.torch_utils.pictures.images import save_image
from ggdr.torch_utils.untrusted.regular_files import make_subfolder

INDEX_FILE = "clusters.json"
LABELS_FILE = "labels.npz"
NUMBERS_FILE = "numbers.csv"


@dataclass
class ClusterFolder:
    """Sheets, maps and arrays, and an index of them that `ggdr report` reads."""

    path: Path
    title: str
    note: str | None = None
    sheets: list[dict[str, Any]] = field(default_factory=list)
    animations: list[dict[str, Any]] = field(default_factory=list)
    numbers: list[dict[str, Any]] = field(default_factory=list)

    def add_sheet(self, file: str, sheet: np.ndarray, title: str, note: str | None = None) -> None:
        """Writes a contact sheet."""
        save_image(sheet, self.path / file)
        self.sheets.append({"file": file, "title": title, "note": note})

    def add_maps(self, view: NetworkView, folder: Path, photographs: NetworkView | None) -> None:
        """labels.npz and maps/KIND-RESxRES/NAME.png of one network."""
        arrays: dict[str, np.ndarray] = {"captions": np.array(view.captions)}
        kinds = {"generator": (view, view.generator), "predicted": (view, view.predicted)}
        kinds["encoder"] = (view, view.encoder)
        if photographs is not None:
            arrays["photographs"] = np.array(photographs.captions)
            kinds["photographs_predicted"] = (photographs, photographs.predicted)
            kinds["photographs_encoder"] = (photographs, photographs.encoder)
        for kind, (source, maps) in kinds.items():
            for res, labels in maps.items():
                arrays[f"{kind}_{res}x{res}"] = labels.numpy().astype(np.uint8)
                self._write_maps(folder / "maps" / f"{kind}-{res}x{res}", source, labels)
        for res, clusters in view.clusters.items():
            arrays[f"centers_{res}x{res}"] = clusters.centers.numpy()
            arrays[f"numbers_{res}x{res}"] = clusters.numbers.numpy()
        with atomic_write(folder / LABELS_FILE) as file:
            np.savez_compressed(file, **arrays)

    def add_numbers(
        self,
        numbers: list[dict[str, Any]],
        *,
        shown: list[dict[str, Any]] | None = None,
        file_name: str = NUMBERS_FILE,
    ) -> None:
        """A table, a line each; the index gets all of them, or those that are to be `shown`."""
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, list(numbers[0]))
        table.writeheader()
        table.writerows(numbers)
        with atomic_write(self.path / file_name) as file:
            file.write(text.getvalue().encode())
        self.numbers = numbers if shown is None else shown

    def write_index(self) -> None:
        """clusters.json; the last of the files."""
        record = {
            "title": self.title,
            "command": shlex.join(["ggdr", *sys.argv[1:]]),
            "note": self.note,
            "sheets": self.sheets,
            "animations": self.animations,
            "numbers": self.numbers,
        }
        with atomic_write(self.path / INDEX_FILE) as file:
            file.write((json.dumps(record, indent=2) + "\n").encode())

    def _write_maps(self, folder: Path, view: NetworkView, labels: Tensor) -> None:
        """Indexed PNGs as large as the images."""
        make_subfolder(self.path, folder.relative_to(self.path))
        for caption, image, x in zip(view.captions, view.images, labels, strict=True):
            with atomic_write(folder / f"{file_name(caption)}.png") as file:
                label_image(x, image.shape[1::-1]).save(file, format="PNG")


def file_name(caption: str) -> str:
    """A caption as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", caption).lstrip(".") or "_"
