# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The pictures of `ggdr report`: sample grids and cluster sheets, small enough for one page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggdr.scripts.reports.picture_kinds import PictureKind
from ggdr.scripts.reports.read_run import Run
from ggdr.torch_utils.untrusted.json_text import MAX_BYTES, is_finite, parse_json
from ggdr.torch_utils.untrusted.regular_files import read_regular
from ggdr.torch_utils.untrusted.text import printable

if TYPE_CHECKING:
    from PIL import Image

MAX_SIDE = 1024  # pixels of a sample grid
MAX_SHEET_SIDE = 2400  # pixels of a cluster sheet, which holds text
MAX_ENLARGED = 16  # times that a sample grid may show each pixel
QUALITY = 88
MAX_ANIMATION = 6 * 2**20  # bytes; a larger one is linked
# Numbers of `ggdr clusters`, in words: how much of G's clusters and features the discriminator knows, and how well
# clusters agree with label maps.
NUMBERS = {
    "nmi": "prediction: mutual information",
    "cosine": "prediction: cosine similarity",
    "encoder_nmi": "D's own features: mutual information",
    "miou": "mIoU",
    "miou_sd": "sd of mIoU",
    "ari": "ARI",
    "ari_sd": "sd of ARI",
    "ami": "AMI",
    "ami_sd": "sd of AMI",
}
ANIMATION_TYPES = {".gif": "image/gif", ".webp": "image/webp", ".mp4": "video/mp4", ".webm": "video/webm"}


class Pictures:
    """Pictures as data URIs; equal ones (the reals of several runs) are stored once."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self._known: dict[bytes, int] = {}

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.uris))

    def add(self, data: bytes, mime: str) -> int:
        """The number of the picture in `uris`."""
        if data not in self._known:
            self._known[data] = len(self.uris)
            self.uris.append(f"data:{mime};base64,{base64.b64encode(data).decode()}")
        return self._known[data]

    def add_file(self, path: Path, *, is_sheet: bool = False) -> dict[str, Any]:
        """{"image": its number, "width", "height", "enlarged"} of a picture on disk, encoded anew.

        `enlarged`: it is kept smaller than it is to be shown, as its pixels are small squares.

        Raises:
            DataError: it cannot be decoded.
            OSError: it cannot be read.
        """
        from ggdr.torch_utils.data.image_files import MAX_FILE, load_image

        img = load_image(read_regular(path, MAX_FILE), str(path))
        mode = "RGBA" if img.has_transparency_data else "RGB"
        img = img if img.mode == mode else img.convert(mode)
        small = img if is_sheet else _unenlarged(img)
        size = {"width": img.width, "height": img.height, "enlarged": small is not img}
        data = _encoded(small, is_sheet)
        return {"image": self.add(data, "image/webp"), **size}


def samples(
    runs: Sequence[Run],
    pictures: Pictures,
    most: int,
    *,
    link: Callable[[Path], str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, Any], list[str]]:
    """The pictures of all runs, by kind.

    Args:
        most:     pictures of a run and kind that are kept: the first, the last, and evenly spaced ones, at the same
                  kimg in all runs where they have them.
        link:     a file's address, as seen from the page.
        progress: called with the number of pictures done, and of all.

    Returns:
        {"kimg": [every position of the slider],
         "kinds": [{"title", "once", "runs": [{"frames": [{"kimg", "link", picture's keys}], "total"}]}]},
        and notes on what could not be read. A picture that is made once is a frame whose kimg is None. Kinds of which
        no run has a picture are left out.
    """
    kinds: dict[str, PictureKind] = {}
    for kind in (kind for run in runs for kind in run.pictures):
        kinds.setdefault(kind.name, kind)
    files = {
        kind: [kind.files(run.path) if any(own.name == name for own in run.pictures) else {} for run in runs]
        for name, kind in kinds.items()
    }
    steps = {kimg for found in files.values() for own in found for kimg in own if kimg is not None}
    chosen = set(spread(sorted(steps), most))
    kept = {kind: [_kept(list(own), chosen, most) for own in found] for kind, found in files.items()}
    total, done = sum(len(kimgs) for found in kept.values() for kimgs in found), 0
    shown, notes = [], []
    for kind, found in files.items():
        shown_runs = []
        for own, kimgs in zip(found, kept[kind], strict=True):
            frames = []
            for kimg in kimgs:
                picture = picture_or_note(notes, pictures, own[kimg])
                frames += [] if picture is None else [{"kimg": kimg, "link": link(own[kimg]), **picture}]
                done += 1
                progress(done, total)
            shown_runs.append({"frames": frames, "total": len(own)})
        if any(run["frames"] for run in shown_runs):
            shown.append({"title": kind.title, "once": kind.once, "runs": shown_runs})
    kimg = {frame["kimg"] for kind in shown if not kind["once"] for run in kind["runs"] for frame in run["frames"]}
    return {"kimg": sorted(kimg), "kinds": shown}, notes


def clusters(
    run_dir: Path, name: str, pictures: Pictures, most: int, *, link: Callable[[Path], str], animated: bool = True
) -> tuple[list[dict], list[str]]:
    """What `ggdr clusters` left in the folders of a run: each folder with a clusters.json.

    Args:
        name:     what readers call the run.
        most:     sheets of a folder, and animations, that are kept.
        link:     a file's address, as seen from the page.
        animated: whether to keep animations too.

    Returns:
        [{"run", "title", "command", "note", "sheets", "animations", "numbers": rows by the columns' titles}], and
        notes on what could not be read.
    """
    found, notes = [], []
    for path in sorted(path for path in run_dir.glob("*/clusters.json") if path.is_file()):
        if path.parent.is_symlink() or path.is_symlink():
            notes.append(f"{path} is a link to elsewhere, which a page does not follow")
            continue
        try:
            about = parse_json(read_regular(path, MAX_BYTES))
            listed = [
                (str(sheet["title"]), _text(sheet.get("note")), _beside(path, sheet)) for sheet in about["sheets"]
            ]
            entries = about["animations"] if animated else []
            moving = [(str(entry["title"]), _beside(path, entry, ANIMATION_TYPES)) for entry in entries][:most]
            numbers = [
                {NUMBERS.get(key, key): _cell(value) for key, value in row.items()} for row in about.get("numbers", [])
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            notes.append(f"{path}: not as `ggdr clusters` writes it ({type(error).__name__}: {printable(error)})")
            continue
        sheets = []
        for title, note, file in listed[:most]:
            picture = picture_or_note(notes, pictures, file, is_sheet=True)
            sheets += [] if picture is None else [{"title": title, "note": note, "link": link(file), **picture}]
        animations = [_animation(title, file, pictures, link) for title, file in moving if file.is_file()]
        notes += [f"{file}: not there" for _, file in moving if not file.is_file()]
        texts = {key: _text(about.get(key)) for key in ("command", "note")}
        title = str(about.get("title") or path.parent.name)
        found.append({"run": name, "title": title, **texts, "sheets": sheets, "animations": animations})
        found[-1]["numbers"] = numbers
    return found, notes


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _cell(value: Any) -> Any:
    """A value of a table: a number that JSON can hold, or text."""
    return value if value is None or is_finite(value) else str(value)


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` (2 or more) of the items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _kept(own: Sequence[float | None], chosen: set[float], most: int) -> list[float | None]:
    """Of a run's own kimg those that were chosen for all runs, and its ends."""
    inner = [kimg for kimg in own[1:-1] if kimg in chosen]
    return sorted({*own[:1], *inner[: most - 2], *own[-1:]})


def picture_or_note(
    notes: list[str], pictures: Pictures, path: Path, *, is_sheet: bool = False
) -> dict[str, Any] | None:
    """The picture; None, and a note, if it cannot be read."""
    from ggdr.scripts.errors import os_error_text
    from ggdr.torch_utils.data.image_files import DataError

    try:
        return pictures.add_file(path, is_sheet=is_sheet)
    except DataError as error:
        notes.append(str(error))
    except OSError as error:
        notes.append(os_error_text(error))
    return None


def _animation(title: str, path: Path, pictures: Pictures, link: Callable[[Path], str]) -> dict[str, Any]:
    """An animation as it is, or only its address if it is too large for a page."""
    mime, size = ANIMATION_TYPES[path.suffix.lower()], path.stat().st_size
    image = pictures.add(read_regular(path, MAX_ANIMATION), mime) if size <= MAX_ANIMATION else None
    return {"title": title, "image": image, "is_video": mime.startswith("video"), "link": link(path), "bytes": size}


def _beside(path: Path, entry: dict[str, Any], suffixes: Collection[str] | None = None) -> Path:
    """The file that an entry of a clusters.json names; ValueError unless it lies in the same folder."""
    name = entry["file"]
    if not isinstance(name, str) or Path(name).name != name or "\\" in name:
        raise ValueError(f"expected the name of a file in the same folder, got {name!r}")
    if (path.parent / name).resolve().parent != path.parent.resolve():
        raise ValueError(f"{name!r} is a link to elsewhere, which a page does not follow")
    if suffixes is not None and Path(name).suffix.lower() not in suffixes:
        raise ValueError(f"expected a name ending in one of {', '.join(suffixes)}, got {name!r}")
    return path.parent / name


def _encoded(img: Image.Image, is_sheet: bool) -> bytes:
    """WebP; an image that is too large for a page is made smaller itself."""
    from PIL import Image

    limit = MAX_SHEET_SIDE if is_sheet else MAX_SIDE
    if max(img.size) > limit:
        img.thumbnail((limit, limit), Image.Resampling.LANCZOS)
    lossy = _webp(img, quality=QUALITY)
    # Flat colours and text are often smaller, and always sharper, without loss.
    return min(_webp(img, lossless=True), lossy, key=len) if is_sheet else lossy


def _webp(img: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    img.save(file, "WEBP", method=4, **options)
    return file.getvalue()


def _unenlarged(img: Image.Image) -> Image.Image:
    """The picture before each of its pixels was repeated, as it is in the grids of small images."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(img)
    for scale in range(MAX_ENLARGED, 1, -1):
        if pixels.shape[0] % scale or pixels.shape[1] % scale:
            continue
        # Row by row and column by column: a picture may be large.
        rows = pixels[::scale]
        if all(np.array_equal(rows, pixels[i::scale]) for i in range(1, scale)) and all(
            np.array_equal(rows[:, ::scale], rows[:, i::scale]) for i in range(1, scale)
        ):
            return Image.fromarray(rows[:, ::scale])
    return img
