# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Reads pickled networks as plain data: nothing named in the file is imported, called or executed.

A pickle is a program for a small stack machine, whose instructions may name any function and call it. This machine
knows the instructions, but no functions: a few admitted names stand for plain data (a dict, a number, a tensor) or
for a `Record` of what was written there, and every other name ends the reading with an `InertPickleError`.

Source: PEP 307, 574 and 3154; the standard library's documentation of pickletools.
"""

from __future__ import annotations

import mmap
import os
import pickletools
import struct
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torch_utils.inert_source import Budget, InertPickleError, Source
from torch_utils.printable import printable
from torch_utils.tensor_file import TensorFileError, read_tensor_file, strided_tensor

MAX_MARKS = 1000  # of containers under construction, one in the other
MAX_INT_BITS = 128

NETWORK = "torch_utils.persistence._reconstruct_persistent_obj"
# What some versions of Python and NumPy call otherwise.
OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "numpy._core.multiarray": "numpy.core.multiarray"}
DICTS = ("builtins.dict", "collections.OrderedDict", "dnnlib.util.EasyDict")
RECORDS = (NETWORK, "numpy.core.multiarray._reconstruct", "numpy.dtype", "torch.Size", "torch.device")
ADMITTED = {
    *DICTS,
    *RECORDS,
    "_codecs.encode",
    "builtins.bytes",
    "builtins.set",
    "copyreg._reconstructor",
    "numpy.core.multiarray.scalar",
    "numpy.ndarray",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    "torch.storage._load_from_bytes",
    *(f"torch.{name}" for name in ("float16", "bfloat16", "float32", "float64", "int64", "channels_last")),
}
# NumPy's names of scalar types, and struct's.
SCALARS = {
    "f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b",
    "u8": "Q", "u4": "I", "u2": "H", "u1": "B", "b1": "?",
}  # fmt: skip

# Instructions that push their argument, and constants.
VALUES = set(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE "
    "SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8".split()
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(eq=False, repr=False)
class Record:
    """What the file wrote where Python would have called `name` with `args`, and then set `state`."""

    name: str
    args: tuple
    state: Any = None


@dataclass(frozen=True, repr=False)
class Name:
    """An admitted name, which stands for nothing but itself."""

    name: str


def read_inert(path: str | os.PathLike) -> Any:
    """Reads a pickle file without loading it into memory as a whole.

    Returns:
        Dicts, lists, tuples, sets, strings, numbers, bytes (as views of the file where they are long), tensors on
        the CPU, and Records of the objects in between. Structures may share parts and contain themselves.

    Raises:
        InertPickleError: the file is damaged, or holds something else than networks; its `name` is what was refused.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise InertPickleError("the file is empty")
        # Closed when nothing refers to it any more.
        return parse_inert(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def parse_inert(data: bytes | mmap.mmap) -> Any:
    """Reads a pickle; returns and raises as `read_inert`."""
    return _Machine(Source(data), Budget(len(data))).run()


class _Machine:
    """Executes the instructions of one pickle on a stack of inert values."""

    def __init__(self, source: Source, budget: Budget) -> None:
        self.source, self.budget = source, budget
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each open mark
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value that the pickle leaves on the stack."""
        try:
            for opcode, arg, _ in pickletools.genops(self.source):
                self.budget.step()
                if opcode.name == "STOP":
                    return self.pop()
                self.execute(opcode.name, arg)
        except InertPickleError:
            raise
        except (ValueError, OverflowError, LookupError, TypeError) as error:
            # pickletools' own complaints; their texts may quote the file at length.
            raise InertPickleError(f"it is damaged before byte {self.source.tell()}: {printable(error)}") from error
        raise InertPickleError("it ends in the middle")

    # The stack.

    def pop(self) -> Any:
        if not self.stack:
            raise InertPickleError("an instruction finds too few values")
        return self.stack.pop()

    def pop_many(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]

    def pop_to_mark(self) -> list[Any]:
        if not self.below:
            raise InertPickleError("an instruction finds no mark")
        items, self.stack = self.stack, self.below.pop()
        return items

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise InertPickleError(f"an instruction finds no {kind.__name__} to put something into")
        return self.stack[-1]

    def push(self, value: Any) -> None:
        if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
            raise InertPickleError(f"a number of more than {MAX_INT_BITS} bits")
        self.stack.append(value)

    # Instructions.

    def execute(self, op: str, arg: Any) -> None:
        """One instruction."""
        if op in VALUES:
            self.push(arg)
        elif op in CONSTANTS:
            self.push(CONSTANTS[op])
        elif op in ("BINGET", "LONG_BINGET", "GET"):
            if arg not in self.memo:
                raise InertPickleError(f"it refers to a value {arg} that it does not hold")
            self.push(self.memo[arg])
        elif op in ("MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[len(self.memo) if op == "MEMOIZE" else arg] = self.top(object)
        elif op == "MARK":
            if len(self.below) >= MAX_MARKS:
                raise InertPickleError(f"containers are nested more than {MAX_MARKS} deep")
            self.below.append(self.stack)
            self.stack = []
        elif op in TUPLES:
            self.push(tuple(self.pop_many(TUPLES[op])))
        elif op in ("PROTO", "FRAME"):
            pass
        elif op == "POP":
            # The standard's POP also takes away a mark.
            self.pop() if self.stack else self.pop_to_mark()
        elif op == "POP_MARK":
            self.pop_to_mark()
        elif op == "DUP":
            self.push(self.top(object))
        else:
            self.build(op, arg)

    def build(self, op: str, arg: Any) -> None:
        """The instructions that make containers and name functions."""
        match op:
            case "EMPTY_LIST":
                self.push([])
            case "EMPTY_DICT":
                self.push({})
            case "EMPTY_SET":
                self.push(set())
            case "LIST":
                self.push(self.pop_to_mark())
            case "TUPLE":
                self.push(tuple(self.pop_to_mark()))
            case "DICT":
                self.push(_updated({}, self.pop_to_mark()))
            case "FROZENSET":
                self.push(frozenset(_keys(self.pop_to_mark())))
            case "APPEND":
                item = self.pop()
                self.top(list).append(item)
            case "APPENDS":
                items = self.pop_to_mark()
                self.top(list).extend(items)
            case "ADDITEMS":
                items = self.pop_to_mark()
                self.top(set).update(_keys(items))
            case "SETITEM":
                items = self.pop_many(2)
                _updated(self.top(dict), items)
            case "SETITEMS":
                items = self.pop_to_mark()
                _updated(self.top(dict), items)
            case "GLOBAL":
                self.push(self.named(*arg.split(" ", 1)))
            case "STACK_GLOBAL":
                module, name = self.pop_many(2)
                self.push(self.named(module, name))
            case "REDUCE":
                function, args = self.pop_many(2)
                self.push(self.reduced(function, args))
            case "NEWOBJ":
                cls, args = self.pop_many(2)
                if not (isinstance(cls, Name) and cls.name in DICTS and args == ()):
                    raise _refused(_name_of(cls), "made without its constructor")
                self.push({})
            case "BUILD":
                state = self.pop()
                record = self.top(object)
                if not (isinstance(record, Record) and record.name in RECORDS and record.state is None):
                    raise _refused(_name_of(record), "given a state")
                record.state = state
            case _:
                raise _refused(f"the instruction {op} {arg if isinstance(arg, str | int) else ''}".strip(), "executed")

    def named(self, module: Any, name: Any) -> Name:
        """An admitted name; refuses all others."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise InertPickleError("it names something by values that are no text")
        full = f"{OLD_MODULES.get(module, module)}.{name}"
        if full not in ADMITTED:
            raise _refused(f"{module}.{name}", "loaded")
        return Name(full)

    def reduced(self, function: Any, args: Any) -> Any:
        """What stands for `function(*args)`; see the module's docstring."""
        if not isinstance(function, Name) or not isinstance(args, tuple):
            raise _refused(_name_of(function), "called")
        match function.name, args:
            case (("collections.OrderedDict" | "dnnlib.util.EasyDict"), ()):
                return {}
            case "copyreg._reconstructor", (Name(name="dnnlib.util.EasyDict"), Name(name="builtins.dict"), dict(items)):
                return dict(items)
            case "builtins.set", ([*items],):
                return set(_keys(items))
            case "builtins.bytes", ():
                return b""
            case "_codecs.encode", (str(text), "latin1"):
                # How protocols without bytes write them.
                self.budget.take(len(text))
                return text.encode("latin1")
            case "numpy.core.multiarray.scalar", (Record(name="numpy.dtype") as dtype, bytes(data)):
                return _numpy_scalar(dtype, data)
            case "torch.storage._load_from_bytes", ((bytes() | memoryview()) as data,):
                return self.storage(data)
            case "torch._utils._rebuild_tensor_v2", (Tensor() as storage, offset, tuple(size), tuple(stride), *_):
                return self.tensor(storage, offset, size, stride)
            case "torch._utils._rebuild_parameter", (Tensor() as data, bool(), _):
                return data
            case name, _ if name in RECORDS:
                return Record(name, args)
        raise _refused(function.name, "called in this way")

    # Tensors.

    def storage(self, data: bytes | memoryview) -> Tensor:
        """The storage [numel] that a tensor is a part of: a torch file inside of the pickle."""
        self.budget.take(len(data))
        try:
            storage = read_tensor_file(bytes(data))
        except TensorFileError as error:
            raise InertPickleError(str(error)) from error
        if not isinstance(storage, Tensor):
            raise InertPickleError(f"a tensor's file holds a {type(storage).__name__}")
        return storage

    def tensor(self, storage: Tensor, offset: Any, size: tuple, stride: tuple) -> Tensor:
        """A tensor of its own memory."""
        try:
            view = strided_tensor(storage, offset, size, stride)
        except ValueError as error:
            raise InertPickleError(str(error)) from error
        self.budget.take(view.nbytes)
        # Most are the whole of their storage, which nobody else uses then.
        whole = view.is_contiguous() and view.numel() == storage.numel()
        return view if whole else view.contiguous().clone()


def _refused(name: str, what: str) -> InertPickleError:
    text = f"it asks for {printable(name)} to be {what}, which no network needs; nothing of it was executed"
    return InertPickleError(text, name=name)


def _name_of(value: Any) -> str:
    return value.name if isinstance(value, Name | Record) else f"a value of type {type(value).__name__}"


def _keys(items: list[Any]) -> list[Any]:
    """Hashing a tuple of tuples of tuples has no bounds, so that keys are no containers."""
    for key in items:
        if not isinstance(key, str | int | float | bytes | None):
            raise InertPickleError(f"a key of type {type(key).__name__}")
    return items


def _updated(target: dict, items: list[Any]) -> dict:
    """Puts keys and values, one after the other, into a dict."""
    if len(items) % 2:
        raise InertPickleError("a key without value")
    target.update(zip(_keys(items[::2]), items[1::2], strict=True))
    return target


def _numpy_scalar(dtype: Record, data: bytes) -> float | int | bool:
    """The number in a pickled NumPy scalar, from its little-endian bytes."""
    match dtype.args, dtype.state:
        case (str(kind), *_), (int(), "<" | "|", None, None, None, *_) if kind in SCALARS:
            code = "<" + SCALARS[kind]
            if len(data) == struct.calcsize(code):
                return struct.unpack(code, data)[0]
    raise InertPickleError("a NumPy scalar that is no number of at most 8 bytes", name="numpy.dtype")
