# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Published files: found in a cache, or downloaded, and checked.

Why no library: with pooch 1.9 this module had 264 lines in place of 283, needed eight more packages, and failed 14 of
the 36 cases of its tests. pooch asks three times for a file that is gone (HTTP 404) before it turns to the next
address; takes an empty file, and one without end; leaves what a killed download wrote; reads each file again for its
SHA-256, and keeps none where nobody published one; it has no lock between processes, and one folder. huggingface_hub
goes on with a transfer that broke, which neither this nor pooch does, but fetches from its hub alone, where none of
our files is.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch

from ggdr.torch_utils.atomic_write import atomic_write
from ggdr.torch_utils.cache import cache_folder
from ggdr.torch_utils.process_lock import process_lock
from ggdr.torch_utils.terminal import can_redraw
from ggdr.torch_utils.untrusted.regular_files import open_regular
from ggdr.torch_utils.untrusted.text import visible

PAUSES = (1.0, 4.0)  # seconds before the second and the third try
TIMEOUT = 30.0  # seconds without a byte from the network
CHUNK = 1 << 20  # bytes
GONE = range(400, 500)  # HTTP codes that stay what they are when one asks again,
BUSY = (408, 425, 429)  # but for these
MOST = 4 << 30  # bytes of a file whose size nobody names


class WeightsError(RuntimeError):
    """Weights that cannot be had, or a file that does not hold them."""


@dataclass(frozen=True)
class WeightsFile:
    """A published file, and all that a user without a network needs to know of it.

    Where nobody has published the SHA-256, the first file that comes is taken, its SHA-256 is kept beside it, and
    any other file is refused from then on.
    """

    name: str  # in the cache
    urls: tuple[str, ...]
    sha256: str | None
    size: int | None  # bytes; None: as the server says
    what: str
    by_hand: str  # what else to do with a copy of it, as "give its path with --inception FILE"
    aliases: tuple[str, ...] = ()  # what others call it
    hint: str = ""  # a last sentence for those who cannot get it
    licence: str = ""  # said at each download

    def __str__(self) -> str:
        size = "" if self.size is None else f", {self.size:,} bytes"
        return f"{self.name}{size}" + (f", SHA-256 {self.sha256}" if self.sha256 else "")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def find_weights(file: WeightsFile, path: Path | None = None, *, download: bool = True) -> Path:
    """The path of a published file; as `find_hashed`, but a file that is given is not even read."""
    if path is None:
        return find_hashed(file, download=download)[0]
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected {file.what} ({file.name})")
    return path


def find_hashed(file: WeightsFile, path: Path | None = None, *, download: bool = True) -> tuple[Path, str]:
    """Path and SHA-256 of a published file: the one given, else one in a cache, else a download into ours.

    Files in caches have the right SHA-256; one in ours that has not, as after a broken copy, is replaced. A file that
    is given may be another, as its SHA-256 tells.

    Args:
        path:     of a file that the user names.
        download: whether the network may be asked.

    Raises:
        WeightsError: there is no such file, and how to come by it; or another one than was used before.
    """
    if path is not None:
        path = find_weights(file, path)
        return path, sha256_of(path)
    ours, *others = _cached(file)
    for found in (ours, *others):
        if (digest := _digest_of(found, file, trust=found == ours)) is not None:
            return found, digest
        if found.is_file():
            _say(f"{found} is damaged, or another file: its SHA-256 is not {_expected(ours, file)}, so it is not used")
    reason = "it is in no cache, and downloads are switched off"
    if download:
        try:
            ours.parent.mkdir(parents=True, exist_ok=True)
            with exclusive(ours):
                # Another process may have been quicker.
                return ours, _digest_of(ours, file, trust=True) or _download(file, ours)
        except OSError as error:
            reason = f"{ours}: {error.strerror or error}"
        except _DownloadError as error:
            reason = str(error)
    raise WeightsError(
        f"no weights of {file.what}: {reason}\n"
        f"  file:    {file}\n"
        f"  address: {' or '.join(file.urls)}\n"
        f"Fetch it elsewhere and put it at {ours}, or {file.by_hand}. "
        "Caches are under GGDR_CACHE if that is set; proxies are taken from HTTPS_PROXY." + f" {file.hint}".rstrip()
    )


# Caches.


def _cached(file: WeightsFile) -> list[Path]:
    """Where the file may be: first in our cache, then in those of others."""
    try:
        ours, hub = cache_folder("weights"), Path(torch.hub.get_dir()).expanduser() / "checkpoints"
    except RuntimeError as error:  # no home folder
        raise WeightsError(f"{error}; set GGDR_CACHE to a folder for {file.name}, or {file.by_hand}") from error
    return [ours / file.name, *(hub / name for name in (file.name, *file.aliases))]


def _digest_of(path: Path, file: WeightsFile, *, trust: bool) -> str | None:
    """SHA-256 of the file if a path holds it, else None; `trust`: also one that nobody knows it of, which is kept then.

    Raises:
        WeightsError: it is not the file that was trusted first.
    """
    digest = None
    with suppress(OSError):
        digest = sha256_of(path) if path.is_file() else None
    if digest is None:
        return None
    expected = _expected(path, file)
    if expected is None and trust:
        _say(f"{path} is used for the first time; any other file of this name will be refused (SHA-256 {digest})")
        _keep_digest(path, digest)
        return digest
    if digest != expected and file.sha256 is None and trust:
        raise WeightsError(
            f"{path}: another file than the one that was used first: its SHA-256 is {digest}, expected {expected} "
            f"(from {_digest_path(path)}); put the first one back, or delete both files to trust this one's successor"
        )
    return digest if digest == expected else None


def _expected(path: Path, file: WeightsFile) -> str | None:
    """The SHA-256 of the published file, or of the first one of its name that was used."""
    if file.sha256 is not None:
        return file.sha256
    with suppress(OSError, UnicodeDecodeError):
        return _digest_path(path).read_text(encoding="ascii").split(maxsplit=1)[0]
    return None


def _digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _keep_digest(path: Path, digest: str) -> None:
    """As sha256sum writes it, which can check it, too."""
    with atomic_write(_digest_path(path)) as target:
        target.write(f"{digest}  {path.name}\n".encode("ascii"))


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Waits until no other process makes `path`; where nothing can be locked, as in a folder to read from, each may."""
    with ExitStack() as stack:
        is_held = False
        with suppress(OSError):
            lock = process_lock(
                path.with_name(f".{path.name}.lock"),
                lambda holder: _say(f"waiting for another process that makes {path.name} ({holder})"),
            )
            is_held = stack.enter_context(lock)
        # Then nobody else is at work, and these were left by processes that were killed.
        for partial in path.parent.glob(f".{path.name}.*.partial") if is_held else ():
            partial.unlink(missing_ok=True)
        yield


# Downloads.


class _DownloadError(Exception):
    """Says why there is no file; `again` if another try may help."""

    def __init__(self, reason: str, *, again: bool = True) -> None:
        super().__init__(reason)
        self.again = again


def _download(file: WeightsFile, path: Path) -> str:
    """Tries each address up to three times; returns the SHA-256 of what came."""
    size = "" if file.size is None else f" ({file.size / 1e6:.1f} MB)"
    _say(f"downloading {file.what}{size} to {path}" + (f"; {file.licence}" if file.licence else ""))
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


def _fetch(url: str, path: Path, file: WeightsFile) -> str:
    """One try; `path` becomes the whole file or stays what it was. Errors of the network become _DownloadError.

    Returns:
        The SHA-256 of the file.
    """
    digest, received, expected = hashlib.sha256(), 0, _expected(path, file)
    with _network_errors():
        response = urllib.request.build_opener().open(url, timeout=TIMEOUT)
    # Where the server names no length either, the file ends with the connection.
    size = response.length if file.size is None else file.size
    most = min(MOST, MOST if size is None else size)
    with response, atomic_write(path) as target, _progress(file.name, size) as advance:
        while received <= most:
            with _network_errors():
                chunk = response.read(CHUNK)
            if not chunk:
                break
            target.write(chunk)
            digest.update(chunk)
            received += len(chunk)
            advance(len(chunk))
        if received > most or received < (1 if size is None else size):
            some = f"{received:,}" if received <= most else "more"
            raise _DownloadError(f"{some} bytes came instead of {size or most:,}")
        if expected not in (None, digest.hexdigest()):
            raise _DownloadError(f"another file came, of SHA-256 {digest.hexdigest()}", again=False)
    if file.sha256 is None:
        _keep_digest(path, digest.hexdigest())
    return digest.hexdigest()


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
def _progress(name: str, size: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error if that is a terminal; yields what moves it by some bytes."""
    if not can_redraw(sys.stderr):
        yield lambda num_bytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=size)
        yield lambda num_bytes: progress.advance(task, num_bytes)


def _say(text: str) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"ggdr: {visible(text)}", file=sys.stderr, flush=True)
