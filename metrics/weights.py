# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Published weights: found in a cache, or downloaded and checked; and read, without running code, into tensors."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor

from torch_utils.cache import cache_folder
from torch_utils.checkpoint import atomic_write

PAUSES = (1.0, 4.0)  # seconds before the second and the third try
TIMEOUT = 30.0  # seconds without a byte from the network
CHUNK = 1 << 20  # bytes
GONE = range(400, 500)  # HTTP codes that stay what they are when one asks again,
BUSY = (408, 425, 429)  # but for these


class WeightsError(RuntimeError):
    """Weights that cannot be had, or a file that does not hold them."""


@dataclass(frozen=True)
class WeightsFile:
    """A published file, and all that a user without a network needs to know of it."""

    name: str  # in the cache
    urls: tuple[str, ...]
    sha256: str
    size: int  # bytes
    what: str
    option: str  # of the command line, that takes its path
    aliases: tuple[str, ...] = ()  # what others call it


INCEPTION = WeightsFile(
    name="pt_inception-2015-12-05-6726825d.pth",
    urls=(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    size=95_628_359,
    what="the Inception network of the FID",
    option="--inception",
    aliases=("weights-inception-2015-12-05-6726825d.pth",),
)
VGG16 = WeightsFile(
    name="vgg16-397923af.pth",
    urls=("https://download.pytorch.org/models/vgg16-397923af.pth",),
    sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    size=553_433_881,
    what="VGG16",
    option="--vgg",
)
LPIPS_VGG = WeightsFile(
    name="lpips-vgg-v0.1-a78928a0.pth",
    urls=("https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth",),
    sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    size=7289,
    what="the linear layers of LPIPS (VGG, v0.1)",
    option="--lpips",
)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def find_weights(file: WeightsFile, path: Path | None = None, *, download: bool = True) -> Path:
    """The path of a published file: the one given, else one in a cache, else a download into ours.

    Files in caches have the right SHA-256; one in ours that has not, as after a broken copy, is replaced. A file that
    is given may be another: `sha256_of` tells.

    Args:
        path:     of a file that the user names.
        download: whether the network may be asked.

    Raises:
        WeightsError: there is no such file, and how to come by it.
    """
    if path is not None:
        if not path.is_file():
            raise WeightsError(f"{path}: no such file; expected {file.what} ({file.name})")
        return path
    ours, *others = _cached(file)
    for found in (ours, *others):
        if _is_whole(found, file):
            return found
        if found.is_file():
            _say(f"{found} is damaged, or another file: its SHA-256 is not {file.sha256[:8]}..., so it is not used")
    reason = "it is in no cache, and downloads are switched off"
    if download:
        try:
            ours.parent.mkdir(parents=True, exist_ok=True)
            with _lock(ours):
                if not _is_whole(ours, file):  # else another process was quicker
                    _download(file, ours)
            return ours
        except OSError as error:
            reason = f"{ours}: {error.strerror or error}"
        except _DownloadError as error:
            reason = str(error)
    raise WeightsError(
        f"no weights of {file.what}: {reason}\n"
        f"  file:    {file.name}, {file.size:,} bytes, SHA-256 {file.sha256}\n"
        f"  address: {' or '.join(file.urls)}\n"
        f"Fetch it elsewhere and put it at {ours}, or give its path with {file.option} FILE. "
        "Caches are under GGDR_CACHE if that is set; proxies are taken from HTTPS_PROXY. "
        "Metrics named _offline need no weights."
    )


def load_weights(
    path: Path, shapes: Mapping[str, tuple[int, ...]], *, what: str, ignored: str | None = None
) -> dict[str, Tensor]:
    """Tensors of a state dict in float32, on the CPU, in the order of `shapes`. Code in the file is not run.

    Args:
        shapes:  names and shapes of all tensors.
        what:    the file is expected to hold, for messages.
        ignored: pattern of names that may be there too, and are left out.

    Raises:
        WeightsError: the file cannot be read, is no state dict, or one with other names or shapes.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises nearly any type on damaged input
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: not a readable file of tensors; expected {what}: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: not a state dict of tensors by name; expected {what}")
    state = {name: t for name, t in state.items() if name in shapes or not (ignored and re.search(ignored, name))}
    wrong = {
        "missing": [name for name in shapes if name not in state],
        "unexpected": [name for name in state if name not in shapes],
        "of another shape": [
            f"{name} {list(state[name].shape)} instead of {list(shape)}"
            for name, shape in shapes.items()
            if name in state and state[name].shape != shape
        ],
    }
    if any(wrong.values()):
        parts = [f"{kind}: {_some(names)}" for kind, names in wrong.items() if names]
        raise WeightsError(f"{path}: not {what}; tensors {'; '.join(parts)}")
    return {name: state[name].float() for name in shapes}


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


# Caches.


def _cached(file: WeightsFile) -> list[Path]:
    """Where the file may be: first in our cache, then in those of others."""
    try:
        ours, hub = cache_folder("weights"), Path(torch.hub.get_dir()).expanduser() / "checkpoints"
    except RuntimeError as error:  # no home folder
        raise WeightsError(f"{error}; set GGDR_CACHE to a folder for {file.name}, or use {file.option} FILE") from error
    return [ours / file.name, *(hub / name for name in (file.name, *file.aliases))]


def _is_whole(path: Path, file: WeightsFile) -> bool:
    with suppress(OSError):
        return path.is_file() and sha256_of(path) == file.sha256
    return False


def _lock(path: Path) -> AbstractContextManager[object]:
    """Waits until no other process downloads to `path`; on systems and file systems without locks, each one may."""
    try:
        import fcntl

        lock = open(path.with_name(f".{path.name}.lock"), "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"waiting for another process that downloads {path.name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
    except (ImportError, OSError):
        return nullcontext()
    # Nobody else is at work, so these were left by processes that were killed.
    for partial in path.parent.glob(f".{path.name}.*.partial"):
        partial.unlink(missing_ok=True)
    return lock  # the lock ends when the file is closed, or the process ends


# Downloads.


class _DownloadError(Exception):
    """Says why there is no file; `again` if another try may help."""

    def __init__(self, reason: str, *, again: bool = True) -> None:
        super().__init__(reason)
        self.again = again


def _download(file: WeightsFile, path: Path) -> None:
    """Tries each address up to three times."""
    _say(f"downloading {file.what} ({file.size / 1e6:.1f} MB) to {path}")
    urls, failures = list(file.urls), {}
    for pause in (0.0, *PAUSES):
        time.sleep(pause if urls else 0)
        for url in list(urls):
            try:
                return _fetch(url, path, file)
            except _DownloadError as error:
                failures[url] = str(error)
                if not error.again:
                    urls.remove(url)
    raise _DownloadError("; ".join(f"{url}: {reason}" for url, reason in failures.items()))


def _fetch(url: str, path: Path, file: WeightsFile) -> None:
    """One try; `path` becomes the whole file or stays what it was. Errors of the network become _DownloadError."""
    digest, received = hashlib.sha256(), 0
    with _network_errors():
        response = urllib.request.build_opener().open(url, timeout=TIMEOUT)
    with response, atomic_write(path) as target, _progress(file) as advance:
        while received <= file.size:
            with _network_errors():
                chunk = response.read(CHUNK)
            if not chunk:
                break
            target.write(chunk)
            digest.update(chunk)
            received += len(chunk)
            advance(len(chunk))
        if received != file.size:
            some = f"{received:,}" if received < file.size else "more"
            raise _DownloadError(f"{some} bytes came instead of {file.size:,}")
        if digest.hexdigest() != file.sha256:
            raise _DownloadError(f"another file came, of SHA-256 {digest.hexdigest()}", again=False)


@contextmanager
def _network_errors() -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        again = error.code not in GONE or error.code in BUSY
        raise _DownloadError(f"HTTP {error.code} {error.reason}", again=again) from error
    except urllib.error.URLError as error:
        raise _DownloadError(f"no connection: {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _DownloadError(f"the connection broke: {error or type(error).__name__}") from error


@contextmanager
def _progress(file: WeightsFile) -> Iterator[Callable[[int], None]]:
    """A bar on standard error if that is a terminal; yields what moves it by some bytes."""
    if not sys.stderr.isatty():
        yield lambda num_bytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(file.name, total=file.size)
        yield lambda num_bytes: progress.advance(task, num_bytes)


def _say(text: str) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"ggdr: {text}", file=sys.stderr, flush=True)
