# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The reader of pickles that runs nothing: what it reads, and all the ways in which a file may ask for more.

The vocabulary is that of published networks, the largest, wherever a test is not about another one.
"""

from __future__ import annotations

import copyreg
import mmap
import os
import pickle
import pickletools
import re
import struct
import subprocess
from collections import OrderedDict

import numpy as np
import pytest
import torch

from ggdr.stylegan2.weights.nvidia_pickle import load_published
from ggdr.torch_utils.untrusted.pickle_names import NUMPY, NUMPY_RECORDS, PLAIN
from ggdr.torch_utils.untrusted.pickle_reader import InertPickleError, Name, Record, Vocabulary, read_pickle
from tests.pickle_cases import MARK, VALUES, Calls, parse

# What is read.


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_back(protocol):
    read = parse(pickle.dumps(VALUES, protocol), Vocabulary({**PLAIN, **NUMPY}, records=NUMPY_RECORDS))
    assert read == VALUES
    assert type(read["ordered"]) is OrderedDict and list(read["ordered"]) == ["b", "a"]
    assert [type(value) for value in read["numpy"]] == [float, float, int, bool, int]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(2, 3),
        torch.randn(3, 4).t(),
        torch.randn(10)[3:7],
        torch.tensor(1.5),
        torch.arange(5),
        torch.tensor([True, False]),
        torch.randn(4).half(),
        torch.randn(4).bfloat16(),
        torch.randn(600),
        torch.nn.Parameter(torch.randn(2, 2)),
    ],
)
def test_tensors_come_back(tensor, protocol):
    read = parse(pickle.dumps([tensor, tensor], protocol))
    assert read[0] is read[1]
    assert torch.equal(read[0], tensor) and read[0].dtype == tensor.dtype and read[0].stride() == tensor.stride()
    assert not read[0].requires_grad


def test_parts_that_the_file_shares_are_shared_and_form_circles_where_they_may():
    value = {"list": [1]}
    value["again"] = value["list"]
    read = parse(pickle.dumps(value), Vocabulary())
    assert read["again"] is read["list"]
    value["self"] = value
    read = parse(pickle.dumps(value), Vocabulary(circles=True))
    assert read["self"] is read
    with pytest.raises(InertPickleError, match="deep"):
        parse(pickle.dumps(value), Vocabulary())


def test_trees_end_in_plain_values_also_within_records():
    vocabulary = Vocabulary(names=["a.name"], records=["a.record"])
    name, record, lists = b"ca\nname\n", b"ca\nrecord\n", b"]" * 70 + b"a" * 69
    for content in (name + b".", b"](" + name + b"e.", record + lists + b"\x85R.", record + b")R" + lists + b"b."):
        with pytest.raises(InertPickleError, match="deep|to be a value"):
            parse(content, vocabulary)
    assert parse(record + name + b"\x85R.", vocabulary).args == (Name("a.name"),)


def test_values_without_meaning_here_are_kept_as_records():
    array = parse(pickle.dumps(np.zeros(3), 4))
    assert isinstance(array, Record) and array.name == "numpy.core.multiarray._reconstruct"
    assert array.args[:2] == (Name("numpy.ndarray"), (0,)) and array.state[-1] == bytes(24)


def test_names_stand_for_what_the_vocabulary_says():
    data = b"](ca\nmake\nK\x02K\x03\x86Rca\nvalue\nca\nname\nca\nrecord\nK\x01\x85R}b" + text("7") + b"Qe."
    vocabulary = Vocabulary({"a.make": pow}, {"a.value": 5}, ["a.name"], ["a.record"], persistent=int, circles=True)
    power, value, name, record, persistent = parse(data, vocabulary)
    assert (power, value, name, persistent) == (8, 5, Name("a.name"), 7)
    assert (record.name, record.args, record.state) == ("a.record", (1,), {})
    assert parse(b"P7\n.", vocabulary) == 7
    for part in ("a.make", "a.value", "a.name", "a.record"):
        with pytest.raises(InertPickleError, match=f"asks for {part} to be loaded") as caught:
            parse(b"c%s\n." % part.replace(".", "\n").encode(), Vocabulary(PLAIN))
        assert caught.value.name == part


def test_only_makers_and_records_are_called():
    for part in ("name", "value"):
        with pytest.raises(InertPickleError, match="called"):
            parse(b"ca\n%s\n)R." % part.encode(), Vocabulary(values={"a.value": print}, names=["a.name"]))


def test_one_pickle_is_read_out_of_several():
    values = [1, {"a": [2]}, (b"x" * 2000,), "text"]
    data = b"before" + b"".join(pickle.dumps(value, i) for i, value in enumerate(values)) + b"behind"
    end = len(b"before")
    for value in values:
        read, end = read_pickle(data, Vocabulary(PLAIN), start=end)
        assert read == value
    assert data[end:] == b"behind"


def test_strings_of_python_2_are_text_or_left_as_they_are():
    data = b"](U\x02\xc3\xbcT\x01\x00\x00\x00bS'\\xc3\\xbc\\n'\nS\"it's\"\ne."
    assert parse(data) == ["\u00fc", "b", "\u00fc\n", "it's"]
    assert parse(data, Vocabulary(strings_as_bytes=True)) == [b"\xc3\xbc", b"b", b"\xc3\xbc\n", b"it's"]


def test_long_bytes_of_a_memoryview_are_no_copies():
    data = pickle.dumps([b"a" * 1000, b"b" * 10**6], 4)
    short, long = parse(memoryview(data))
    assert type(short) is bytes and isinstance(long, memoryview) and long.obj is data
    assert [type(value) for value in parse(data)] == [bytes, bytes]


def test_attributes_of_ordered_dicts_are_left_out():
    value = OrderedDict(a=1)
    value._metadata = {"": {"version": 1}}
    for protocol in range(6):
        assert vars(parse(pickle.dumps(value, protocol))) == {}


def test_files_are_read_as_bytes_are(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": torch.ones(1000), "b": bytes(10**6)}))
    read = load_published(tmp_path / "x.pkl")
    assert torch.equal(read["a"], torch.ones(1000))
    assert read["b"] == bytes(10**6) and isinstance(read["b"].obj, mmap.mmap)  # which takes no memory
    (tmp_path / "x.pkl").write_bytes(b"")
    with pytest.raises(InertPickleError, match="empty"):
        load_published(tmp_path / "x.pkl")


# Code.


HOSTILE = {
    "posix.mkdir": lambda p: pickle.dumps(Calls(os.mkdir, MARK), p),
    "posix.system": lambda p: pickle.dumps(Calls(os.system, f"mkdir {MARK}"), p),
    "builtins.eval": lambda p: pickle.dumps(Calls(eval, f"__import__('os').mkdir('{MARK}')"), p),
    "builtins.exec": lambda p: pickle.dumps([1, {"a": Calls(exec, f"__import__('os').mkdir('{MARK}')")}], p),
    "builtins.getattr": lambda p: pickle.dumps(Calls(getattr, Calls(__import__, "os"), "system"), p),
    "subprocess.Popen": lambda p: pickle.dumps(Calls(subprocess.Popen, ["mkdir", MARK]), p),
    "torch.serialization.load": lambda p: pickle.dumps(Calls(torch.load, "x.pt"), p),
    "copyreg.__newobj_ex__": lambda p: pickle.dumps(Calls(copyreg.__newobj_ex__, OrderedDict, (), {}), p),
}


WAYS = ("__import__", "partial", "the instruction NEWOBJ_EX")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", HOSTILE)
def test_calls_are_refused_by_name_and_not_made(tmp_path, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    data = HOSTILE[name](protocol)
    with pytest.raises(InertPickleError, match="nothing of it was run") as caught:
        parse(data)
    # Old protocols call some by names of Python 2, and some by way of others, which are refused all the same.
    assert caught.value.name.rpartition(".")[2] in (name.rpartition(".")[2], *WAYS)
    assert not os.listdir(tmp_path)


def op(name: str) -> bytes:
    return {o.name: o for o in pickletools.opcodes}[name].code.encode("latin-1")


def text(value: str) -> bytes:
    return op("BINUNICODE") + struct.pack("<I", len(value)) + value.encode()


SYSTEM = b"cos\nsystem\n"
RAW = {
    "INST": b"(Vmkdir x\nios\nsystem\n.",
    "INST of an admitted name": b"(icollections\nOrderedDict\n.",
    "OBJ": b"(" + SYSTEM + b"Vmkdir x\no.",
    "OBJ of an admitted name": b"(ccollections\nOrderedDict\no.",
    "NEWOBJ": SYSTEM + b")\x81.",
    "NEWOBJ of a function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)\x81.",
    "NEWOBJ_EX": b"\x80\x04ccollections\nOrderedDict\n)}\x92.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x00.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "protocol 6": b"\x80\x06N.",
    "a string without quotes": b"Sabc\n.",
    "a string of half its quotes": b"S'\n.",
    "PERSID": b"Pmodel\n.",
    "BINPERSID": b"\x80\x02X\x05\x00\x00\x00modelQ.",
    "STACK_GLOBAL from the memo": b"\x80\x04" + text("system") + b"q\x000" + text("os") + b"q\x010h\x01h\x00\x93.",
    "STACK_GLOBAL of numbers": b"\x80\x04K\x01K\x02\x93.",
    "GLOBAL with a space": b"cos system\nx\n.",
    "GLOBAL of a dotted name": b"\x80\x04" + text("torch") + text("Size.__class__") + b"\x93.",
    "REDUCE of a value": b"K\x01)R.",
    "REDUCE with a list": b"ccollections\nOrderedDict\n]R.",
    "REDUCE of a record": b"cnumpy\ndtype\n)R)R.",
    "BUILD of a dict": b"}}b.",
    "BUILD of a name": b"ccollections\nOrderedDict\n}b.",
    "BUILD twice": b"cnumpy\ndtype\n)R}b}b.",
    "EasyDict with a state": b"\x80\x02cdnnlib.util\nEasyDict\n)\x81}X\x01\x00\x00\x00aK\x01sb.",
    "a list into a set": b"]q\x00(h\x00\x90.",
    "an OrderedDict with a tuple as key": b"ccollections\nOrderedDict\n])K\x01\x86a\x85R.",
    "an OrderedDict of no pairs": b"ccollections\nOrderedDict\n(](K\x01etR.",
    "a set by name of a tuple": b"cbuiltins\nset\n])a\x85R.",
    "a frozenset of a tuple": b"\x80\x04()\x91.",
    "a set of a tuple": b"\x80\x04\x8f()\x90.",
    "a set of sets": b"\x80\x04\x8f(\x8f\x90.",
    "a dict with a tuple as key": b"}(K\x01t)s.",
    "items into a list": b"](K\x01K\x02u.",
    "items into a tuple": b")(K\x01e.",
    "a key without value": b"}(K\x01u.",
    "bytes in another encoding": b"c_codecs\nencode\n(" + text("a") + text("utf-8") + b"tR.",
    "bytes beyond latin-1": b"c_codecs\nencode\n(X\x03\x00\x00\x00\xe2\x82\xac" + text("latin1") + b"tR.",
    "a buffer from outside": b"\x80\x05\x97.",
    "a bytearray": b"\x80\x05\x96\x01\x00\x00\x00\x00\x00\x00\x00a.",
    "an empty stack": b".",
    "a pop of nothing": b"0.",
    "a mark of nothing": b"t.",
    "a value of no memo": b"h\x07.",
    "an unknown instruction": b"\xff.",
    "no end": b"K\x01",
    "a scalar of an object": b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\x00\x00\x00O8I00\nI01\ntR"
    b"(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tbC\x01atR.",
    "a scalar of a date": b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\x00\x00\x00M8I00\nI01\ntR"
    b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbC\x08" + bytes(8) + b"tR.",
    "a scalar of a terabyte": b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x0e\x00\x00\x00V9999999999999"
    b"I00\nI01\ntR"
    b"(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbC\x01atR.",
}


@pytest.mark.parametrize("name", RAW)
def test_tricks_of_the_format_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InertPickleError):
        parse(RAW[name])
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("start", [b"<html>", b"version https://git-lfs", b"\x1f\x8b\x08"])
def test_files_that_are_no_pickles_are_called_so(start):
    with pytest.raises(InertPickleError, match=re.escape(f"it is no pickle, or damaged: byte 0 is {start[:1]!r}")):
        parse(start)


def test_names_that_are_no_text_are_not_written_out():
    laughs = b"N" + b"2\x86" * 60  # each time a pair of what was before
    with pytest.raises(InertPickleError, match="a tuple in place of a str"):
        parse(laughs + b"K\x01\x93.")


def test_a_file_is_refused_although_the_end_of_it_is_harmless():
    # The call's result would be thrown away.
    with pytest.raises(InertPickleError, match="os.system"):
        parse(SYSTEM + b"(Vtrue\ntR0}.")
