# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Each input's translation as a file of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice, product
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ggdr.scripts.errors import CliError, memory_error_text, write_error_text
from ggdr.scripts.options.parameters import bad_parameter
from ggdr.scripts.options.progress import Progress
from ggdr.scripts.translating.image_files import Translation, durations_of, frames_of
from ggdr.scripts.translating.inputs import Input
from ggdr.torch_utils.data.image_files import DataError, load_image
from ggdr.torch_utils.pictures.animation import save_animation
from ggdr.torch_utils.pictures.images import save_image
from ggdr.torch_utils.untrusted.text import printable

LOOP_FPS = 10  # of animations, whose frames have times of their own
MISSING = 0.9  # of the frames that a video says it has


@dataclass(frozen=True)
class Job:
    """An input, its domain, the one that it is translated to, the file that the result goes to, and its seed."""

    input: Input
    source: str
    target: str
    out: Path
    seed: int


@dataclass
class Outcome:
    """What was written; why the rest was not; and what else there is to say."""

    written: list[Job] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan_jobs(
    inputs: Sequence[Input], directions: Sequence[tuple[str, str]], outdir: Path, suffix: str, seeds: Sequence[int]
) -> list[Job]:
    """Which file each input's translation goes to, one for each seed.

    Args:
        suffix: of stills, as "png".
        seeds:  different ones; names of files have them if there are several.

    Raises:
        DataError: two would have one name, or one the name of an input.
    """
    taken = {each.file for each in inputs}
    jobs: dict[Path, Job] = {}
    for (each, (source, target)), seed in product(zip(inputs, directions, strict=True), seeds):
        plain = outdir / each.name
        stem = plain.stem if len(seeds) == 1 else f"{plain.stem}-seed{seed}"
        name = Path(os.path.normpath(plain.with_name(f"{stem}.{_suffix(each, suffix)}")))
        if not name.is_relative_to(os.path.normpath(outdir)):
            raise DataError(f"{each.where}: its name leads out of the folder")
        if name in jobs:
            raise DataError(
                f"{each.where}: its translation would be {printable(name)}, as that of {jobs[name].input.where}; "
                "rename one, or translate them to two folders"
            )
        if os.path.realpath(name) in taken:
            text = f"its translation would replace {printable(name)}, an input; take another folder"
            raise DataError(f"{each.where}: {text}")
        jobs[name] = Job(each, source, target, name, seed)
    return list(jobs.values())


def _suffix(each: Input, of_stills: str) -> str:
    if each.is_still:
        return of_stills
    if each.video is not None:
        return "mp4"
    return "gif" if each.name.lower().endswith(".gif") else "webp"


def num_of(jobs: Sequence[Job]) -> str:
    """How many results there are, as "1 image" or "3 images and 1 video"; animations are counted as videos."""
    stills = sum(job.input.is_still for job in jobs)
    counts = [(stills, "image"), (len(jobs) - stills, "video")]
    return " and ".join(f"{n} {word}{'s' * (n != 1)}" for n, word in counts if n or (word == "image" and not jobs))


def run_jobs(jobs: Sequence[Job], translation: Translation, outdir: Path, progress: Progress) -> Outcome:
    """Translates and writes all; goes on after an input that cannot be read, which the outcome names.

    Raises:
        click.BadParameter: a result cannot be written, with what was written before.
        CliError: memory does not suffice, likewise.
    """
    outcome = Outcome()
    stills = [job for job in jobs if job.input.is_still]
    done = 0
    with _saying_what_was_written(outcome, outdir):
        for batch in _batches(stills, translation):
            _run_stills(batch, translation, outcome, progress)
            done += len(batch)
            progress("images", done, len(stills))
        for job in jobs:
            if not job.input.is_still:
                _run_frames(job, translation, outcome, progress)
    return outcome


@contextmanager
def _saying_what_was_written(outcome: Outcome, outdir: Path) -> Iterator[None]:
    """Ends an error that stops all with how much there is by then."""

    def before() -> str:
        return f"; {num_of(outcome.written)} written before"

    try:
        yield
    except OSError as error:
        raise bad_parameter(write_error_text(outdir, error) + before(), "--outdir") from error
    except torch.OutOfMemoryError as error:
        raise CliError(f"{memory_error_text(error)}: a smaller --batch or --tile takes less{before()}") from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
        raise CliError(f"not enough memory: a smaller --batch or --tile takes less{before()}") from error


def _batches(jobs: Sequence[Job], translation: Translation) -> Iterator[list[Job]]:
    """Images of equal size, direction and seed that are translated together; those in tiles one by one."""
    groups: dict[tuple, list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.input.size, job.source, job.target, job.seed), []).append(job)
    for (size, *_), group in groups.items():
        step = translation.batch_size if translation.is_whole(size) else 1
        for i in range(0, len(group), step):
            yield group[i : i + step]


def _run_stills(batch: Sequence[Job], translation: Translation, outcome: Outcome, progress: Progress) -> None:
    loaded: list[tuple[Job, Image.Image, np.ndarray]] = []
    for job in batch:
        try:
            data = job.input.read()
            img = load_image(data, job.input.where)
            pixels = translation.read(img, job.source, job.target, job.input.where)
            if pixels.shape[1::-1] != job.input.size:
                raise DataError(f"{job.input.where}: is another image than when it was first looked at")
        except DataError as error:
            outcome.errors.append(str(error))
            continue
        loaded.append((job, img, pixels))
    if not loaded:
        return
    first = loaded[0][0]
    results = replace(translation, seed=first.seed)(
        [pixels for _, _, pixels in loaded],
        first.source,
        first.target,
        lambda done, total: progress("tiles", done, total),
    )
    for (job, img, _), pixels in zip(loaded, results, strict=True):
        if img.format in ("PNG", "TIFF") and img.n_frames > 1:
            outcome.notes.append(f"{job.input.where}: the first of {img.n_frames} pages or frames")
        job.out.parent.mkdir(parents=True, exist_ok=True)
        save_image(pixels if job.out.suffix == ".jpg" else translation.finished(img, pixels), job.out)
        outcome.written.append(job)


def _run_frames(job: Job, translation: Translation, outcome: Outcome, progress: Progress) -> None:
    """A video or animation, of which a batch of frames is in memory at once, and of an animation all results."""
    video, where = job.input.video, job.input.where
    job.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        if video is not None:
            images = (Image.fromarray(frame) for frame in video.frames())
            num = save_animation(_translated(images, job, translation, progress), job.out, fps=video.fps)
        else:
            data = job.input.read()
            times, images = durations_of(data, where), frames_of(data, where)
            frames = _translated(images, job, translation, progress)
            num = save_animation(frames, job.out, fps=LOOP_FPS, durations_ms=times)
    except DataError as error:
        outcome.errors.append(str(error))
        return
    outcome.written.append(job)
    if video is not None and video.has_sound:
        outcome.notes.append(f"{where}: its sound is left out")
    if num < MISSING * job.input.frames:
        outcome.notes.append(f"{where}: {num} of about {job.input.frames} frames could be read; it may be truncated")


def _translated(
    images: Iterator[Image.Image], job: Job, translation: Translation, progress: Progress
) -> Iterator[np.ndarray]:
    done, translation = 0, replace(translation, seed=job.seed)
    while batch := list(islice(images, translation.batch_size)):
        pixels = [translation.read(img, job.source, job.target, job.input.where) for img in batch]
        yield from translation(pixels, job.source, job.target)
        done += len(batch)
        progress("frames", done, max(job.input.frames, done))
