# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Reads pickles as plain data: nothing that a file names is imported, called or executed.

A pickle is a program for a small stack machine, whose instructions may name any function and call it. This machine
knows the instructions of all protocols, but no functions: a `Vocabulary` says what the names in one kind of file stand
for, and every other name ends the reading with an `InertPickleError`.

Source: PEP 307, 574 and 3154; the standard library's documentation of pickletools.
"""

from __future__ import annotations

import codecs
import struct
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ggdr.torch_utils.untrusted.pickle_bytes import DIGITS, MAX_DIGITS, InertPickleError, Source
from ggdr.torch_utils.untrusted.text import printable

MAX_INSTRUCTIONS = 300_000  # training states and published networks of 1024x1024 have about 40,000
MAX_INT_BYTES = 16
MAX_KEY = 2**60  # larger numbers may have any hash
MAX_NAME = 200  # bytes of a module's or function's name
MAX_DEPTH = 64  # of trees
MAX_VALUES = 300_000  # of trees, in which shared parts count each time

# What Python 2 and NumPy 2 call otherwise. These are spellings; none of them is admitted here.
OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "numpy._core.multiarray": "numpy.core.multiarray"}


@dataclass(frozen=True)
class Vocabulary:
    """What the names in one kind of file stand for, by "module.name".

    Attributes:
        makers:     functions that stand in for what the pickle calls. Their arguments come from the file; they may
                    raise ValueError and TypeError, and should take no more time than in proportion to len(argument).
        values:     what stands for other names.
        names:      names that stand for themselves, as Name.
        records:    classes and functions, of which it is kept as a Record what they would have been called with.
        persistent: gives what stands for a persistent id.
        circles:    whether values may hold themselves, and shared parts grow without bound where they are written out.
                    Only for users who visit them with care; others get trees.
        strings_as_bytes: leave the strings of Python 2 as they are, in place of decoding them.
    """

    makers: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    names: Collection[str] = ()
    records: Collection[str] = ()
    persistent: Callable[[Any], Any] | None = None
    circles: bool = False
    strings_as_bytes: bool = False


@dataclass(frozen=True)
class Name:
    """A name of the vocabulary, which is not looked up anywhere."""

    name: str


@dataclass(eq=False, repr=False)
class Record:
    """What the file wrote where Python would have called `name` with `args`, and then set `state`."""

    name: str
    args: tuple
    state: Any = None


def read_pickle(data: bytes | memoryview, vocabulary: Vocabulary, *, start: int = 0) -> tuple[Any, int]:
    """Reads one pickle.

    Args:
        data:  holds it; of a memoryview, long bytes stay views.
        start: where it begins.

    Returns:
        Its value (dicts, lists, tuples, sets, text, numbers, bytes, and what the vocabulary makes), and where it ends.

    Raises:
        InertPickleError: it is damaged, too large, or of other names, the first of which is the error's `name`.
    """
    source = Source(data, start)
    try:
        value = _Machine(source, vocabulary).run()
    except InertPickleError:
        raise
    except (ValueError, TypeError, LookupError, OverflowError, struct.error) as error:
        raise InertPickleError(f"it is damaged before byte {source.position}: {printable(error)}") from error
    if not vocabulary.circles:
        _check_tree(value)
    return value, source.position


class _Machine:
    """Executes the instructions of one pickle on a stack of inert values."""

    def __init__(self, source: Source, vocabulary: Vocabulary) -> None:
        self.source, self.vocabulary = source, vocabulary
        # In a sound file each byte is an argument twice at most: text becomes bytes, and bytes a tensor.
        self.budget = 3 * (len(source.data) - source.position)
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each open mark
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value that the pickle leaves on the stack."""
        for _ in range(MAX_INSTRUCTIONS):
            code = self.source.take(1)
            if code == b".":
                return self.stack.pop()
            if code not in INSTRUCTIONS:
                raise InertPickleError(f"it is no pickle, or damaged: byte {self.source.position - 1} is {code!r}")
            instruction, *details = INSTRUCTIONS[code]
            instruction(self, *details)
        raise InertPickleError(f"it has more than {MAX_INSTRUCTIONS:,} instructions")

    # Values.

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def number(self, form: str) -> None:
        self.push(self.source.number(form))

    def long(self, form: str) -> None:
        size = self.source.number(form)
        if not 0 <= size <= MAX_INT_BYTES:
            raise InertPickleError(f"a number of {size:,} bytes")
        self.push(int.from_bytes(self.source.take(size), "little", signed=True))

    def int_line(self) -> None:
        line = self.source.line(MAX_DIGITS)
        flags = {b"00": False, b"01": True}
        self.push(flags[line] if line in flags else int(line.removesuffix(b"L")))

    def float_line(self) -> None:
        self.push(float(self.source.line(MAX_DIGITS)))

    def data(self, form: str) -> None:
        self.push(self.source.take(self.source.number(form)))

    def text(self, form: str) -> None:
        self.push(str(self.source.take(self.source.number(form)), "utf-8", "surrogatepass"))

    def text_line(self) -> None:
        self.push(str(self.source.line(), "raw-unicode-escape"))

    def string(self, form: str) -> None:
        self.push_string(self.source.take(self.source.number(form)))

    def string_line(self) -> None:
        line = bytes(self.source.line())
        if len(line) < 2 or line[0] != line[-1] or line[0] not in b"'\"":
            raise InertPickleError("a string without quotes")
        self.push_string(codecs.escape_decode(line[1:-1])[0])

    def push_string(self, data: bytes | memoryview) -> None:
        """A string of Python 2, which may have been text or bytes."""
        self.push(data if self.vocabulary.strings_as_bytes else str(data, "utf-8"))

    # The stack and the memo.

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def popped(self, count: int | None = None) -> list[Any]:
        """The last `count` values, or those since the last mark."""
        if count is not None:
            return [self.stack.pop() for _ in range(count)][::-1]
        items, self.stack = self.stack, self.below.pop()
        return items

    def pop(self) -> None:
        # An instruction to pop may also mean a mark.
        self.popped(1 if self.stack else None)

    def duplicate(self) -> None:
        self.push(self.stack[-1])

    def put(self, form: str | None = None) -> None:
        self.memo[len(self.memo) if form is None else self.source.number(form)] = self.stack[-1]

    def get(self, form: str) -> None:
        self.push(self.memo[self.source.number(form)])

    # Containers.

    def new(self, kind: type) -> None:
        self.push(kind())

    def collect(self, make: Callable[[list[Any]], Any], count: int | None = None) -> None:
        self.push(make(self.popped(count)))

    def fill(self, put_into: Callable[[Any, list[Any]], Any], count: int | None = None) -> None:
        items = self.popped(count)
        put_into(self.stack[-1], items)

    # Names.

    def global_line(self) -> None:
        module, name = (str(self.source.line(MAX_NAME), "utf-8") for _ in range(2))
        self.push_named(module, name)

    def global_of_stack(self) -> None:
        module, name = self.popped(2)
        self.push_named(expect(str, module), expect(str, name))

    def push_named(self, module: str, name: str) -> None:
        known, full = self.vocabulary, f"{OLD_MODULES.get(module, module)}.{name}"
        if full in known.values:
            self.push(known.values[full])
        elif full in known.makers or full in known.records or full in known.names:
            self.push(Name(full))
        else:
            raise _refused(f"{module}.{name}", "loaded")

    def call(self) -> None:
        function, args = self.popped(2)
        if not isinstance(function, Name):
            raise _refused(_name_of(function), "called")
        sized = (str, bytes, memoryview, list, tuple, dict, set)
        self.budget -= len(expect(tuple, args)) + sum(len(arg) for arg in args if isinstance(arg, sized))
        if self.budget < 0:
            raise InertPickleError("its values would be more than the file holds")
        if function.name in self.vocabulary.makers:
            self.push(self.vocabulary.makers[function.name](*args))
        elif function.name in self.vocabulary.records:
            self.push(Record(function.name, args))
        else:
            raise _refused(function.name, "called")

    def build(self) -> None:
        (state,) = self.popped(1)
        built = self.stack[-1]
        if isinstance(built, Record) and built.state is None:
            built.state = state
        # The attributes of an OrderedDict, such as the versions of a state dict's modules, are left out.
        elif not isinstance(built, OrderedDict):
            raise _refused(_name_of(built), "given a state")

    def persistent_line(self) -> None:
        self.push_persistent(str(self.source.line(MAX_NAME), "utf-8"))

    def persistent_of_stack(self) -> None:
        self.push_persistent(*self.popped(1))

    def push_persistent(self, pid: Any) -> None:
        if self.vocabulary.persistent is None:
            raise _refused("a value outside of the file", "loaded")
        self.push(self.vocabulary.persistent(pid))

    # The rest.

    def protocol(self) -> None:
        if (number := self.source.number("<B")) > 5:
            raise InertPickleError(f"protocol {number}; known are 0 to 5")

    def skip(self, size: int) -> None:
        self.source.take(size)

    def refuse(self, name: str) -> None:
        raise _refused(f"the instruction {name}", "executed")


def _refused(name: str, what: str) -> InertPickleError:
    text = f"it asks for {printable(name)} to be {what}, which no such file needs; nothing of it was run"
    return InertPickleError(text, name=name)


def _name_of(value: Any) -> str:
    return value.name if isinstance(value, Name | Record) else f"a value of type {type(value).__name__}"


def expect(kind: type, value: Any) -> Any:
    """The value, which has to be of one kind; raises InertPickleError."""
    if not isinstance(value, kind):
        raise InertPickleError(f"a {type(value).__name__} in place of a {kind.__name__}")
    return value


def as_keys(items: list[Any]) -> list[Any]:
    """Keys of dicts and sets: no containers, which may be nested without end, and no numbers made to share a hash."""
    for key in items:
        if not isinstance(key, str | int | float | bytes | None) or isinstance(key, int) and abs(key) > MAX_KEY:
            raise InertPickleError(f"a key of type {type(key).__name__}, or of too many digits")
    return items


def _extend(target: Any, items: list[Any]) -> None:
    expect(list, target).extend(items)


def _add(target: Any, items: list[Any]) -> None:
    expect(set, target).update(as_keys(items))


def _update(target: Any, items: list[Any]) -> dict:
    """Puts keys and values, one after the other, into a dict."""
    expect(dict, target).update(zip(as_keys(items[::2]), items[1::2], strict=True))
    return target


_M = _Machine
# What each instruction does, by its code.
INSTRUCTIONS: dict[bytes, tuple] = {
    # Values, with the form that they are in.
    b"N": (_M.push, None), b"\x88": (_M.push, True), b"\x89": (_M.push, False), b")": (_M.push, ()),
    b"K": (_M.number, "<B"), b"M": (_M.number, "<H"), b"J": (_M.number, "<i"), b"G": (_M.number, ">d"),
    b"I": (_M.int_line,), b"L": (_M.int_line,), b"\x8a": (_M.long, "<B"), b"\x8b": (_M.long, "<i"),
    b"F": (_M.float_line,),
    b"V": (_M.text_line,), b"\x8c": (_M.text, "<B"), b"X": (_M.text, "<I"), b"\x8d": (_M.text, "<Q"),
    b"C": (_M.data, "<B"), b"B": (_M.data, "<I"), b"\x8e": (_M.data, "<Q"),
    b"S": (_M.string_line,), b"U": (_M.string, "<B"), b"T": (_M.string, "<I"),
    # The stack and the memo.
    b"(": (_M.mark,), b"0": (_M.pop,), b"1": (_M.popped,), b"2": (_M.duplicate,),
    b"p": (_M.put, DIGITS), b"q": (_M.put, "<B"), b"r": (_M.put, "<I"), b"\x94": (_M.put,),
    b"g": (_M.get, DIGITS), b"h": (_M.get, "<B"), b"j": (_M.get, "<I"),
    # Containers: empty ones, those of the last values, and those that get values.
    b"]": (_M.new, list), b"}": (_M.new, dict), b"\x8f": (_M.new, set),
    b"t": (_M.collect, tuple), b"\x85": (_M.collect, tuple, 1), b"\x86": (_M.collect, tuple, 2),
    b"\x87": (_M.collect, tuple, 3), b"l": (_M.collect, list), b"d": (_M.collect, lambda items: _update({}, items)),
    b"\x91": (_M.collect, lambda items: frozenset(as_keys(items))),
    b"a": (_M.fill, _extend, 1), b"e": (_M.fill, _extend), b"s": (_M.fill, _update, 2), b"u": (_M.fill, _update),
    b"\x90": (_M.fill, _add),
    # Names, and calls of what they name.
    b"c": (_M.global_line,), b"\x93": (_M.global_of_stack,), b"R": (_M.call,), b"\x81": (_M.call,), b"b": (_M.build,),
    b"P": (_M.persistent_line,), b"Q": (_M.persistent_of_stack,),
    # Protocols, and the lengths of what follows.
    b"\x80": (_M.protocol,), b"\x95": (_M.skip, 8),
    b"i": (_M.refuse, "INST"), b"o": (_M.refuse, "OBJ"), b"\x92": (_M.refuse, "NEWOBJ_EX"),
    b"\x82": (_M.refuse, "EXT1"), b"\x83": (_M.refuse, "EXT2"), b"\x84": (_M.refuse, "EXT4"),
    b"\x96": (_M.refuse, "BYTEARRAY8"), b"\x97": (_M.refuse, "NEXT_BUFFER"), b"\x98": (_M.refuse, "READONLY_BUFFER"),
}  # fmt: skip


def _check_tree(value: Any) -> None:
    """Refuses values that hold themselves, or that shared parts make endless: they would hang their readers."""
    stack, count = [(value, 0)], 0
    while stack:
        value, depth = stack.pop()
        count += 1
        match value:
            case Name(name=name):
                raise _refused(name, "a value")
            case dict():
                inner = value.values()
            case list() | tuple():
                inner = value
            case Record():
                inner = [*(arg for arg in value.args if not isinstance(arg, Name)), value.state]
            case _:
                continue
        if depth == MAX_DEPTH or count + len(stack) + len(inner) > MAX_VALUES:
            raise InertPickleError(f"its values are more than {MAX_DEPTH} deep, or more than {MAX_VALUES:,}")
        stack += [(item, depth + 1) for item in inner]
