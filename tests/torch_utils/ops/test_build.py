# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Building, caching and loading compiled operations, on tiny sources of the tests' own."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import platform
import re
import shutil
import sys
import tempfile
import time

import pytest
import torch

from ggdr.scripts.errors import CliError
from ggdr.scripts.options.parameters import prepare_ops
from ggdr.torch_utils.cache import cache_folder, private_temporary_folder
from ggdr.torch_utils.ops import build, toolchain
from ggdr.torch_utils.ops.bias_act import bias_act
from ggdr.torch_utils.ops.build import BuildError, find_library, find_or_build, set_ops, uses_native
from ggdr.torch_utils.ops.toolchain import MissingTool, cpu_toolchain
from tests.conftest import needs_cxx, python

CPU = torch.device("cpu")
BUILD = """
import sys
import tempfile
from pathlib import Path
from ggdr.torch_utils.ops.build import BuildError, find_or_build
from ggdr.torch_utils.ops.toolchain import cpu_toolchain
try:
    print("loaded", find_or_build(cpu_toolchain(), [Path(sys.argv[1])]), flush=True)
except BuildError as error:
    print("failed", error, flush=True)
"""

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="nothing is compiled on Windows"),
    pytest.mark.usefixtures("fresh_ops"),
]


@pytest.fixture
def source(tmp_path):
    """A library that compiles in a moment."""
    path = tmp_path / "tiny.cpp"
    path.write_text('extern "C" int seven() { return 7; }\n')
    return path


@pytest.fixture
def compilations(tmp_path, monkeypatch):
    """Puts a compiler in place that lists what it compiles here, and that waits for the file $GATE if it is set."""
    log, compiler, gate = tmp_path / "compilations.txt", tmp_path / "gated-c++", tmp_path / "gate"
    log.touch()
    compiler.write_text(f"""#!/bin/sh
for arg; do
  if [ "$arg" = -c ]; then
    echo "$*" >>"{log}"
    while [ -n "$GATE" ] && [ ! -e "$GATE" ]; do sleep 0.05; done
  fi
done
exec c++ "$@"
""")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    yield lambda: log.read_text().splitlines()
    gate.touch()  # for compilers that outlived their build: ninja starts each in a process group of its own


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# One library for all processes.


def build_at_once(source, num, tmp_path, monkeypatch):
    """Starts processes that need the same library; returns the builder's id, and each one's id and output."""
    monkeypatch.setenv("GATE", str(tmp_path / "gate"))
    processes = [python("-c", BUILD, source) for _ in range(num)]
    first_lines = [process.stdout.readline() for process in processes]  # all have come to the lock
    (tmp_path / "gate").touch()
    outputs = {p.pid: line + p.stdout.read() for p, line in zip(processes, first_lines, strict=True)}
    (builder,) = (pid for pid, output in outputs.items() if output.startswith("ggdr: building CPU operations"))
    return builder, outputs


@needs_cxx
def test_processes_that_start_at_once_compile_once(source, compilations, tmp_path, monkeypatch):
    builder, outputs = build_at_once(source, 3, tmp_path, monkeypatch)
    assert len(compilations()) == 1
    assert len({output.split("loaded ")[1] for output in outputs.values()}) == 1
    for pid, output in outputs.items():
        assert pid == builder or output.startswith(f"ggdr: waiting for process {builder} on "), output


@needs_cxx
def test_who_waited_for_a_build_that_failed_does_not_repeat_it(source, compilations, tmp_path, monkeypatch):
    source.write_text("#error out of order\n")
    _, outputs = build_at_once(source, 2, tmp_path, monkeypatch)
    assert all("failed" in output and "#error out of order" in output for output in outputs.values()), outputs
    assert len(compilations()) == 1
    # A later process does try: what was wrong may be mended.
    assert "failed" in python("-c", BUILD, source).communicate()[0]
    assert len(compilations()) == 2


@needs_cxx
def test_a_killed_build_is_neither_waited_for_nor_left_lying(source, compilations, monkeypatch, tmp_path):
    monkeypatch.setenv("GATE", str(tmp_path / "gate"))
    victim = python("-c", BUILD, source)
    wait_for(compilations)
    victim.kill()  # alone: its compiler lives on
    victim.wait()
    assert list(tmp_path.glob("cache/ops/*/build-*"))
    monkeypatch.delenv("GATE")
    output = python("-c", BUILD, source).communicate(timeout=120)[0]
    assert "loaded" in output and "waiting" not in output
    assert len(compilations()) == 2
    assert not list(tmp_path.glob("cache/ops/*/build-*"))


@needs_cxx
def test_a_second_process_loads_without_compiling_or_a_word(source, compilations):
    first, second = (python("-c", BUILD, source).communicate()[0] for _ in range(2))
    assert len(compilations()) == 1
    assert first.endswith(second) and second.startswith("loaded ")


@needs_cxx
def test_of_torchruns_processes_on_a_machine_one_speaks(source, monkeypatch, capfd):
    monkeypatch.setenv("LOCAL_RANK", "1")
    find_or_build(cpu_toolchain(), [source])
    assert capfd.readouterr().err == ""


@needs_cxx
@pytest.mark.parametrize("has_locks", [True, False])
def test_only_builds_that_are_surely_dead_are_cleared_away(source, monkeypatch, has_locks):
    def flock(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    if not has_locks:
        monkeypatch.setattr(fcntl, "flock", flock)
    path = find_or_build(cpu_toolchain(), [source])
    mine, elsewhere = path.with_name(f"build-{platform.node()}+1"), path.with_name(f"build-{platform.node()}-2+1")
    long_dead = path.with_name("build-elsewhere+1")
    for folder in (mine, elsewhere, long_dead):
        folder.mkdir()
    os.utime(long_dead, (0, 0))
    path.unlink()
    assert find_or_build(cpu_toolchain(), [source]) == path
    assert mine.exists() == (not has_locks)
    assert elsewhere.exists() and not long_dead.exists()


# The cache.


@needs_cxx
def test_a_damaged_library_is_built_anew(source, compilations):
    path = find_or_build(cpu_toolchain(), [source])
    whole = path.read_bytes()
    path.unlink()  # the file that this process has loaded stays as it is
    path.write_bytes(whole[: len(whole) // 2])
    assert find_library(path.parent) is None
    again = find_or_build(cpu_toolchain(), [source])
    assert find_library(path.parent) == again and len(compilations()) == 2
    assert list(path.parent.glob("*.so")) == [again]


@needs_cxx
def test_a_library_of_another_system_is_built_anew(source, compilations):
    path = find_or_build(cpu_toolchain(), [source])
    path.unlink()
    foreign = b"a whole file, but no library of this system"
    path.with_name(f"ops-{build.hashlib.sha256(foreign).hexdigest()[:16]}.so").write_bytes(foreign)
    again = find_or_build(cpu_toolchain(), [source])
    assert len(compilations()) == 2 and list(path.parent.glob("*.so")) == [again]


@needs_cxx
def test_without_a_writable_cache_libraries_are_kept_in_a_private_temporary_folder(
    source, compilations, monkeypatch, tmp_path, capfd
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GGDR_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = find_or_build(cpu_toolchain(), [source])
    assert re.search(rf"cannot write to the cache .*/file/ops.*kept in {tmp_path}/ggdr-", capfd.readouterr().err)
    assert private_temporary_folder("ops") in path.parents
    assert find_or_build(cpu_toolchain(), [source]) == path and len(compilations()) == 1


@needs_cxx
@pytest.mark.parametrize("fault", ["others may write", "a link"])
def test_a_temporary_folder_of_others_is_not_used(source, monkeypatch, tmp_path, fault):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GGDR_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = private_temporary_folder("ops").parent
    if fault == "a link":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.chmod(0o777)
    with pytest.raises(PermissionError, match="is not a folder of this user alone"):
        private_temporary_folder("ops")
    with pytest.raises(BuildError, match="cannot write to the cache.*set GGDR_CACHE"):
        find_or_build(cpu_toolchain(), [source])


@needs_cxx
def test_a_full_disk_is_a_build_error(source, monkeypatch):
    def replace(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(build.os, "replace", replace)
    with pytest.raises(BuildError, match="No space left on device.*GGDR_CACHE"):
        find_or_build(cpu_toolchain(), [source])


def test_the_cache_lies_where_the_user_wants_it(monkeypatch, tmp_path):
    assert cache_folder("ops") == tmp_path / "cache" / "ops"
    monkeypatch.delenv("GGDR_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("ops") == tmp_path / "ggdr" / "ops"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder("ops") == tmp_path / "home" / ".cache" / "ggdr" / "ops"


@needs_cxx
def test_the_key_changes_with_all_that_the_machine_code_depends_on(source, monkeypatch, tmp_path):
    def key():
        return build.library_key(cpu_toolchain(), [source])

    keys = [key()]
    assert key() == keys[0]
    source.write_text(source.read_text() + "\n")
    keys.append(key())
    (tmp_path / "common.h").write_text("// constants\n")
    keys.append(key())
    monkeypatch.setattr(toolchain, "cpu_features", lambda: "avx512f")
    keys.append(key())
    monkeypatch.setattr(torch, "__version__", "2.6.0")
    keys.append(key())
    monkeypatch.setattr(toolchain, "CPP_FLAGS", ("-O2",))
    keys.append(key())
    monkeypatch.setattr(toolchain, "version_of", lambda command: "another compiler")
    keys.append(key())
    assert len(set(keys)) == len(keys)


# When it fails.


@needs_cxx
def test_a_compile_error_is_told_with_its_file_and_line(source):
    source.write_text("int good;\nint bad = undeclared;\n")
    with pytest.raises(BuildError, match=r"tiny\.cpp:2:.*error:.*undeclared") as caught:
        find_or_build(cpu_toolchain(), [source])
    log = next(word for word in caught.value.remedy.split() if word.endswith("build.log"))
    with open(log) as file:
        assert caught.value.detail in file.read()
    assert "GGDR_OPS=reference" in str(caught.value)


@needs_cxx
def test_a_library_that_lacks_a_function_is_a_build_error(source):
    source.write_text('extern "C" int nowhere(); extern "C" int seven() { return nowhere(); }\n')
    with pytest.raises(BuildError, match="cannot be loaded.*nowhere"):
        find_or_build(cpu_toolchain(), [source])


@needs_cxx
def test_a_failure_is_remembered(source, compilations, monkeypatch):
    source.write_text("#error out of order\n")
    monkeypatch.setattr(build, "device_sources", lambda device_type: [source])
    set_ops("native")
    for _ in range(3):
        with pytest.raises(BuildError, match="out of order"):
            uses_native(CPU)
    assert len(compilations()) == 1


def test_auto_without_a_compiler_takes_the_reference_and_says_so_once(no_compiler, caplog):
    for _ in range(3):
        assert bias_act(torch.ones(1, 2), torch.tensor([1.0, -3.0]), act="relu", gain=1.0).tolist() == [[2.0, 0.0]]
        assert not uses_native(CPU)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "plain PyTorch" in record.getMessage()
    assert "no C++ compiler" in record.getMessage() and "\n" not in record.getMessage()


def test_native_without_a_compiler_says_what_to_install(no_compiler):
    set_ops("native")
    with pytest.raises(MissingTool, match=r"no C\+\+ compiler.*apt install g\+\+.*GGDR_OPS=reference"):
        uses_native(CPU)
    with pytest.raises(CliError, match=r"no C\+\+ compiler"):
        prepare_ops("native", CPU)


def test_a_compiler_that_was_asked_for_is_not_replaced_by_another(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-c++ -m64")
    with pytest.raises(MissingTool, match=r"CXX is no-such-c\+\+ -m64"):
        cpu_toolchain()


@needs_cxx
def test_without_ninja_pip_is_recommended(monkeypatch):
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **kwargs: None if name == "ninja" else which(name, **kwargs))
    monkeypatch.setattr(toolchain, "find_spec", lambda name: None)
    with pytest.raises(MissingTool, match="pip install ninja"):
        cpu_toolchain()


# The real library.


@needs_cxx
def test_the_library_shares_torchs_threads(monkeypatch, ops_cache):
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    monkeypatch.setenv("GGDR_CACHE", str(ops_cache))
    code = (
        "import torch\nfrom ggdr.torch_utils.ops.build import load_library\n"
        "load_library('cpu')\n"
        "print(len({line.split()[-1] for line in open('/proc/self/maps') if 'omp' in line.split('/')[-1]}))"
    )
    assert python("-c", code).communicate()[0].splitlines()[-1] == "1"
