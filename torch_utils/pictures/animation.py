# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Pictures to an animation on disk: MP4 (H.264), WebP and GIF."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

ANIMATIONS = (".mp4", ".gif", ".webp")
MAX_LOOP_FPS = 50  # of WebP and GIF: browsers show what claims to be faster at 10


def save_animation(
    frames: Iterable[np.ndarray], path: str | Path, *, fps: float, durations_ms: Sequence[int] | None = None
) -> int:
    """Writes an animation that plays over and over; the file appears whole or not at all.

    Args:
        frames: [H, W, C] uint8, all of one size, C = 1 or 3. MP4 takes them one by one, in memory of one frame;
                WebP and GIF collect them. MP4 repeats the last row or column where a side is odd.
        path:   ends in .mp4, .webp or .gif.
        fps:    frames a second, above 0; WebP and GIF show 50 at most, and a GIF counts in hundredths of a second.
        durations_ms: how long each frame of a WebP or GIF stays, in milliseconds, in place of `fps`.

    Returns:
        The number of frames.

    Raises:
        ValueError: another ending, no frames, frames of other shapes or types, or `fps` not above 0.
        OSError: the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in ANIMATIONS:
        raise ValueError(f"cannot write {path}: expected a name ending in {', '.join(ANIMATIONS)}")
    if not fps > 0:
        raise ValueError(f"cannot write {path}: expected fps above 0, got {fps}")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / f"animation{kind}"
        checked = _checked(frames, path)
        if kind == ".mp4":
            num = _write_mp4(checked, temporary, fps)
        else:
            num = _write_loop(checked, temporary, durations_ms or round(1000 / min(fps, MAX_LOOP_FPS)))
        if num == 0:
            raise ValueError(f"cannot write {path}: got no frames")
        os.replace(temporary, path)
    return num


def _write_mp4(frames: Iterator[np.ndarray], path: Path, fps: float) -> int:
    """Returns the number of frames."""
    import imageio.v2 as imageio
    import numpy as np

    num = 0
    with imageio.get_writer(path, fps=fps, codec="libx264", quality=8, macro_block_size=1) as writer:
        for frame in frames:
            # H.264 stores colour at half the size, and so needs even sides.
            height, width = frame.shape[:2]
            writer.append_data(np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
            num += 1
    return num


def _write_loop(frames: Iterator[np.ndarray], path: Path, duration: int | Sequence[int]) -> int:
    """Returns the number of frames, of a WebP or GIF."""
    import numpy as np
    from PIL import Image

    pictures = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    options = {"quality": 90} if path.suffix == ".webp" else {}
    if pictures:
        first, *rest = pictures
        first.save(path, save_all=True, append_images=rest, duration=duration, loop=0, **options)
    return len(pictures)


def _checked(frames: Iterable[np.ndarray], path: Path) -> Iterator[np.ndarray]:
    """The frames as [H, W, 3]; ValueError for one that is no picture, or unlike the first."""
    import numpy as np

    shape = None
    for number, frame in enumerate(frames):
        if frame.ndim != 3 or frame.shape[2] not in (1, 3) or frame.dtype != np.uint8:
            raise ValueError(
                f"cannot write {path}: frame {number}: expected uint8 [H, W, 1 or 3], got {frame.dtype} {frame.shape}"
            )
        if shape is not None and frame.shape != shape:
            raise ValueError(f"cannot write {path}: frame {number} is {frame.shape}, the first one {shape}")
        shape = frame.shape
        yield np.broadcast_to(frame, (*shape[:2], 3))
