# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Pickles of tensors, arrays and plain values, read by an interpreter that can neither import nor call.

Python's own unpicklers take memory that a file merely asks for, and recurse as deep as a file wants. This one knows
the instructions of protocols 2 to 4 that such values need, counts them, and calls nothing but what it is given.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any, BinaryIO

from torch_utils.printable import printable

MAX_INSTRUCTIONS = 300_000  # a training state of 1024x1024 networks takes 36,000
MAX_DEPTH = 64
MAX_VALUES = 300_000  # counted as a tree, in which shared parts count each time
MAX_INT_BYTES = 16

_NUMBERS = {b"J": "<i", b"K": "<B", b"M": "<H", b"G": ">d"}
_TEXTS = {b"X": "<I", b"\x8c": "<B"}
_STRINGS = {b"T": "<I", b"U": "<B"}  # of Python 2
_BYTES = {b"B": "<I", b"C": "<B"}
_PUTS = {b"q": "<B", b"r": "<I"}
_GETS = {b"h": "<B", b"j": "<I"}
_CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False, b")": ()}
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
_KEYS = (str, int, float, bytes, type(None))  # the hash of anything deeper could recurse without end


class PickleError(ValueError):
    """A pickle that is damaged, or holds more than plain values."""


class Named:
    """A class or function that a pickle names; nothing is imported."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return printable(self.name)


class Stateful:
    """What a maker returns if the pickle may give it a state."""

    def set_state(self, state: Any) -> None:
        raise NotImplementedError


class Record(dict, Stateful):
    """Attributes of an object whose class is known by name only."""

    def set_state(self, state: Any) -> None:
        for key, value in _a(dict, state).items():
            self[_key(key)] = value


def read_pickle(
    file: BinaryIO,
    end: int,
    *,
    makers: Mapping[str, Callable[..., Any]] = {},
    values: Mapping[str, Any] = {},
    names: Collection[str] = (),
    records: Collection[str] = (),
    persistent: Callable[[Any], Any] | None = None,
    strings_as_bytes: bool = False,
) -> Any:
    """One pickle from an open file, which is left behind it.

    Args:
        file:       seekable, at the pickle's start.
        end:        offset in the file that the pickle cannot go beyond.
        makers:     what stands in for functions and classes that the pickle calls, by "module.name".
        values:     what stands for other names.
        names:      names that may be arguments of makers and of `persistent`, as Named.
        records:    classes whose objects are read as Record.
        persistent: gives the value of a persistent id.
        strings_as_bytes: leave the strings of Python 2 as they are, in place of decoding them.

    Raises:
        PickleError: damaged, of other names than these, too deep or too large.
    """
    machine = _Machine(file, end, makers, values, names, records, persistent, strings_as_bytes)
    try:
        value = machine.run()
    except (IndexError, KeyError, TypeError, AttributeError, struct.error, UnicodeDecodeError, OverflowError) as error:
        raise PickleError(f"damaged pickle ({type(error).__name__} at byte {file.tell()})") from error
    _check_tree(value)
    return value


class _Machine:
    """Runs the instructions of one pickle."""

    def __init__(self, file, end, makers, values, names, records, persistent, strings_as_bytes) -> None:
        self._file, self._left = file, end - file.tell()
        self._makers, self._values, self._persistent = makers, values, persistent
        self._names, self._records, self._strings_as_bytes = names, records, strings_as_bytes
        self._memo: dict[int, Any] = {}
        self._marks: list[list] = []
        self._stack: list[Any] = []

    def run(self) -> Any:
        for _ in range(MAX_INSTRUCTIONS):
            code = self._read(1)
            if code == b".":
                return self._stack.pop()
            self._step(code)
        raise PickleError(f"a pickle of more than {MAX_INSTRUCTIONS:,} instructions")

    def _step(self, code: bytes) -> None:
        push, pop = self._stack.append, self._stack.pop
        if code in _GETS:
            push(self._memo[self._unpack(_GETS[code])])
        elif code in _PUTS:
            self._memo[self._unpack(_PUTS[code])] = self._stack[-1]
        elif code in _NUMBERS:
            push(self._unpack(_NUMBERS[code]))
        elif code in _TEXTS:
            push(self._read(self._unpack(_TEXTS[code])).decode())
        elif code in _STRINGS:
            text = self._read(self._unpack(_STRINGS[code]))
            push(text if self._strings_as_bytes else text.decode())
        elif code in _BYTES:
            push(self._read(self._unpack(_BYTES[code])))
        elif code in _CONSTANTS:
            push(_CONSTANTS[code])
        elif code == b"]":
            push([])
        elif code == b"}":
            push({})
        elif code == b"(":
            self._marks.append(self._stack)
            self._stack = []
        elif code == b"t":
            items = self._to_mark()
            self._stack.append(tuple(items))
        elif code in _TUPLES:
            items = [pop() for _ in range(_TUPLES[code])]
            push(tuple(reversed(items)))
        elif code == b"a":
            item = pop()
            _a(list, self._stack[-1]).append(item)
        elif code == b"e":
            items = self._to_mark()
            _a(list, self._stack[-1]).extend(items)
        elif code == b"s":
            value, key = pop(), pop()
            _set_items(self._stack[-1], [key, value])
        elif code == b"u":
            items = self._to_mark()
            _set_items(self._stack[-1], items)
        elif code == b"c":
            push(self._named(f"{self._line()}.{self._line()}"))
        elif code == b"\x93":
            name, module = _a(str, pop()), _a(str, pop())
            push(self._named(f"{module}.{name}"))
        elif code == b"\x94":
            self._memo[len(self._memo)] = self._stack[-1]
        elif code == b"\x95":
            self._read(8)  # the length of what follows, of use to readers of streams
        elif code == b"R":
            args, named = _a(tuple, pop()), _a(Named, pop())
            if named.name not in self._makers:
                raise PickleError(f"calls {named!r}")
            push(self._makers[named.name](*args))
        elif code == b"\x81":
            args, named = _a(tuple, pop()), _a(Named, pop())
            if named.name not in self._records or args:
                raise PickleError(f"makes objects of {named!r}")
            push(Record())
        elif code == b"b":
            state, built = pop(), self._stack[-1]
            if isinstance(built, Stateful):
                built.set_state(state)
            else:
                _a(OrderedDict, built)  # whose attributes are left out, such as the versions of a state dict's modules
        elif code == b"Q" and self._persistent is not None:
            push(self._persistent(pop()))
        elif code == b"\x80":
            if not 2 <= self._unpack("<B") <= 4:
                raise PickleError("a pickle of another protocol than 2 to 4")
        elif code == b"\x8a":
            length = self._unpack("<B")
            if length > MAX_INT_BYTES:
                raise PickleError(f"a whole number of {length} bytes")
            push(int.from_bytes(self._read(length), "little", signed=True))
        else:
            raise PickleError(f"damaged pickle, or one of other than plain values (instruction 0x{code.hex()})")

    def _read(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise PickleError("a pickle that does not end")
        data = self._file.read(size)
        if len(data) != size:
            raise PickleError("a pickle that does not end")
        return data

    def _unpack(self, form: str) -> Any:
        return struct.unpack(form, self._read(struct.calcsize(form)))[0]

    def _line(self) -> str:
        line = bytearray()
        while (byte := self._read(1)) != b"\n":
            line += byte
            if len(line) > 200:
                raise PickleError("a name of more than 200 characters")
        return line.decode()

    def _to_mark(self) -> list:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _named(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        if name in self._makers or name in self._names or name in self._records:
            return Named(name)
        raise PickleError(f"names {printable(name)}, which is neither a tensor nor a plain value; nothing was run")


def _a(kind: type, value: Any) -> Any:
    """The value, which has to be of one kind."""
    if not isinstance(value, kind):
        raise PickleError(f"damaged pickle (a {type(value).__name__} in place of a {kind.__name__})")
    return value


def _set_items(target: Any, items: list) -> None:
    """Sets alternating keys and values."""
    if len(items) % 2:
        raise PickleError("damaged pickle (a key without a value)")
    for key, value in zip(items[::2], items[1::2], strict=True):
        _a(dict, target)[_key(key)] = value


def _key(key: Any) -> Any:
    if not isinstance(key, _KEYS):
        raise PickleError(f"a {type(key).__name__} as a key; expected text or a number")
    return key


def ordered_dict(pairs: Any = ()) -> OrderedDict:
    """A maker of collections.OrderedDict, which old pickles give as a list of pairs."""
    if not isinstance(pairs, (list, tuple)) or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
        raise PickleError("damaged pickle (an OrderedDict of other than pairs)")
    return OrderedDict((_key(key), value) for key, value in pairs)


def plain_set(items: Any = ()) -> set:
    """A maker of sets."""
    return {_key(item) for item in _a(list, items)}


def encoded(text: Any, encoding: Any) -> bytes:
    """A maker of bytes, which protocol 2 writes as text."""
    if encoding != "latin1":
        raise PickleError("bytes in another encoding than latin1")
    try:
        return _a(str, text).encode("latin1")
    except UnicodeEncodeError as error:
        raise PickleError("bytes beyond 255") from error


def _check_tree(value: Any) -> None:
    """Refuses values that hold themselves, or that shared parts make endless: they would hang their readers."""
    stack, count = [(value, 0)], 0
    while stack:
        value, depth = stack.pop()
        count += 1
        if isinstance(value, Named):
            raise PickleError(f"{value!r} in place of a plain value")
        if isinstance(value, dict):
            inner = value.values()
        elif isinstance(value, (list, tuple)):
            inner = value
        else:
            continue
        if depth == MAX_DEPTH or count + len(stack) + len(inner) > MAX_VALUES:
            raise PickleError(f"values more than {MAX_DEPTH} deep, or more than {MAX_VALUES:,} of them")
        stack += [(item, depth + 1) for item in inner]
