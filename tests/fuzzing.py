# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Damaged files, made from whole ones, and bounds on what reading them may take."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator

# Where sizes, signs and offsets overflow.
NUMBERS = (0, 1, 2, 7, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**64 - 1)
FORMS = ("<I", ">I", "<Q", ">Q", "<H", ">H")
TEXTS = (
    b"9" * 400,
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"[" * 3000,
    b"{}",
    b"\x1b[2J",
    b"../",
    b'"',
    b"\\u0000",
    b"\xff",
)


def mutations(data: bytes, *, count: int, seed: int) -> Iterator[bytes]:
    """`count` damaged copies of a whole file, the same ones for the same seed; each has one to four damages."""
    rng = random.Random(seed)
    for _ in range(count):
        mutated = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            rng.choice(DAMAGES)(mutated, rng)
        yield bytes(mutated)


def _at(data: bytearray, rng: random.Random) -> int:
    """A place in the file: anywhere, or near either end, where headers and directories are."""
    if not data:
        return 0
    return rng.choice(
        (rng.randrange(len(data)), rng.randrange(min(len(data), 256)), -1 - rng.randrange(min(len(data), 256)))
    ) % len(data)


def _slice(data: bytearray, rng: random.Random) -> slice:
    start = _at(data, rng)
    return slice(start, start + rng.choice((1, 4, 16, 100, len(data))))


def flip_bit(data: bytearray, rng: random.Random) -> None:
    if data:
        data[_at(data, rng)] ^= 1 << rng.randrange(8)


def set_byte(data: bytearray, rng: random.Random) -> None:
    if data:
        data[_at(data, rng)] = rng.choice((0, 0x7F, 0xFF, rng.randrange(256)))


def set_number(data: bytearray, rng: random.Random) -> None:
    form = rng.choice(FORMS)
    size = struct.calcsize(form)
    start = _at(data, rng)
    data[start : start + size] = struct.pack(form, rng.choice(NUMBERS) % 256**size)


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[_at(data, rng) :]


def remove(data: bytearray, rng: random.Random) -> None:
    del data[_slice(data, rng)]


def repeat(data: bytearray, rng: random.Random) -> None:
    where = _slice(data, rng)
    data[where] = bytes(data[where]) * rng.choice((2, 3))


def swap(data: bytearray, rng: random.Random) -> None:
    one, two = _slice(data, rng), _slice(data, rng)
    data[one], data[two] = bytes(data[two]), bytes(data[one])


def insert(data: bytearray, rng: random.Random) -> None:
    start = _at(data, rng)
    data[start:start] = rng.choice((rng.randbytes(rng.choice((1, 4, 64))), rng.choice(TEXTS)))


def replace_digits(data: bytearray, rng: random.Random) -> None:
    """Overwrites one number that is written in digits."""
    _replace_one(data, rng, b"0123456789", lambda old: rng.choice((str(rng.choice(NUMBERS)).encode(), *TEXTS)))


def replace_digits_in_place(data: bytearray, rng: random.Random) -> None:
    """Other digits, as many as before, so that lengths in headers stay right."""
    _replace_one(data, rng, b"0123456789", lambda old: bytes(rng.choice(b"0123456789") for _ in old))


def replace_punctuation(data: bytearray, rng: random.Random) -> None:
    """Takes away, doubles or changes a quote, brace, comma or colon."""
    _replace_one(data, rng, b'"{}[],:', lambda old: rng.choice((b"", old * 2, b" " * len(old), b"]", b"}", b'"')))


def _replace_one(data: bytearray, rng: random.Random, letters: bytes, new: Callable[[bytes], bytes]) -> None:
    """Replaces a run of some letters, if there is one behind a random place."""
    start = _at(data, rng)
    while start < len(data) and data[start] not in letters:
        start += 1
    stop = start
    while stop < min(len(data), start + 40) and data[stop] in letters:
        stop += 1
    if stop > start:
        data[start:stop] = new(bytes(data[start:stop]))


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip_bit,
    set_byte,
    set_number,
    truncate,
    remove,
    repeat,
    swap,
    insert,
    replace_digits,
    replace_digits_in_place,
    replace_punctuation,
)


def run_bounded(body: str, *args: object, megabytes: int = 300, seconds: float = 60) -> str:
    """Runs Python code in a process of its own, which may take little more memory than its imports; returns its output.

    Args:
        body:      statements; `args` are in sys.argv[1:]. Those up to a line `# bounded` run first, without a bound:
                   the imports.
        megabytes: address space from then on.
        seconds:   after which it counts as hanging.

    Raises:
        AssertionError: the process ended with an error, such as MemoryError, or hung.
    """
    bound = f"""
import resource, re
_now = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) << 10
resource.setrlimit(resource.RLIMIT_AS, (_now + ({megabytes} << 20),) * 2)
"""
    body = textwrap.dedent(body)
    code = body.replace("# bounded", bound) if "# bounded" in body else bound + body
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"still running after {seconds} s") from error
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout
