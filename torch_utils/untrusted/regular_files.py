# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Opening what stands in the place of a file: a pipe never answers, a device never ends, a link leads elsewhere.

Every OSError of these functions names the file, and says what was expected of it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

TAIL_BYTES = 1 << 16
MAX_LOG = 1 << 26  # bytes of a file of lines: 60,000 of a kilobyte
MAX_LINE = 1 << 20  # bytes

# Without the first one, opening a pipe waits for somebody at its other end; with the second a terminal stays another's.
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """A file to read; links to one are followed.

    Raises:
        OSError: it is missing, a folder, a pipe or a device, or cannot be read.
    """
    return open(path, "rb", opener=_opener)


def check_regular(path: str | os.PathLike) -> None:
    """For libraries that open files themselves: the OSError of `open_regular`, if it has one."""
    with open_regular(path):
        pass


def read_regular(path: str | os.PathLike, most: int) -> bytes:
    """The content of a file, of `most` bytes at most.

    Raises:
        OSError: as `open_regular`, or it is larger.
    """
    with open_regular(path) as file:
        return file.read(_size(file, most, path))


def read_lines(path: str | os.PathLike) -> Iterator[bytes]:
    """The lines of a file that is appended to, each with its end; a last one that is only half written is left out.

    Raises:
        OSError: as `open_regular`, or it is larger than 64 MiB, or a line than 1 MiB.
    """
    with open_regular(path) as file:
        _size(file, MAX_LOG, path)
        while (line := file.readline(MAX_LINE)).endswith(b"\n"):
            yield line
        if len(line) == MAX_LINE:
            raise OSError(errno.EFBIG, f"has a line of more than {MAX_LINE:,} bytes", os.fspath(path))


def read_tail(path: str | os.PathLike) -> str:
    """The end of a text file, of 64 KiB at most.

    Raises:
        OSError: as `open_regular`.
    """
    with open_regular(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        return file.read().decode(errors="replace")


def open_no_link(path: str | os.PathLike, mode: str, *, buffering: int = -1) -> IO:
    """`open` for a file that is written in place, in a folder that may be another's.

    A link there could lead to any file of the user's.

    Raises:
        OSError: it is a link, a folder, a pipe or a device, or cannot be opened.
    """
    return open(path, mode, buffering=buffering, opener=_opener_without_links)


def drop_half_line(file: IO[bytes], path: str | os.PathLike) -> None:
    """Cuts off an open file's last line if it has no end; raises OSError, and closes it, for one of more than 1 MiB."""
    start = file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_LINE))
    data = file.read()
    if data.endswith(b"\n"):
        return
    end = data.rfind(b"\n") + 1
    if end == 0 and start > 0:
        file.close()
        raise OSError(errno.EINVAL, f"ends in a line of more than {MAX_LINE:,} bytes: no log", os.fspath(path))
    file.truncate(start + end)


def make_subfolder(folder: Path, name: str | os.PathLike) -> Path:
    """`folder`/`name`, made if it is missing, with all above it; nothing below `folder` may be a link.

    Raises:
        OSError: one is a link, or cannot be made.
    """
    path = folder
    path.mkdir(parents=True, exist_ok=True)
    for part in Path(name).parts:
        path = path / part
        refuse_link(path)
        path.mkdir(exist_ok=True)
    return path


def refuse_link(path: str | os.PathLike) -> None:
    """Raises OSError if a path is a link."""
    if os.path.islink(path):
        reason = "is a link, through which nothing is written; remove it, or choose another folder"
        raise OSError(errno.ELOOP, reason, os.fspath(path))


def _opener(path: str, flags: int) -> int:
    try:
        opened = os.open(path, flags | _AT_ONCE, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a pipe that nobody reads
            raise _kind_error(path) from error
        raise
    kind = os.fstat(opened).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # `open` itself refuses folders
        os.close(opened)
        raise _kind_error(path)
    return opened


def _opener_without_links(path: str, flags: int) -> int:
    try:
        return _opener(path, flags | _NO_LINK)
    except OSError:
        refuse_link(path)
        raise


def _size(file: BinaryIO, most: int, path: str | os.PathLike) -> int:
    """Bytes in an open file; raises OSError for more than `most`."""
    size = os.fstat(file.fileno()).st_size
    if size > most:
        raise OSError(errno.EFBIG, f"expected a file of at most {most:,} bytes, got {size:,}", os.fspath(path))
    return size


def _kind_error(path: str | os.PathLike) -> OSError:
    return OSError(errno.EINVAL, "expected a file, got a pipe or device", os.fspath(path))
