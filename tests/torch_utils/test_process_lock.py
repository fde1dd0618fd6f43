# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Locks between processes, whose holders are killed, fork, or work where nothing can be locked."""

from __future__ import annotations

import errno
import os
import platform
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from ggdr.scripts.errors import CliError
from ggdr.scripts.training.run_folder import RunFolder
from ggdr.torch_utils import process_lock as locks
from ggdr.torch_utils.downloads import exclusive
from ggdr.torch_utils.process_lock import is_locked, process_lock
from tests.conftest import python

HOLD = """
import sys, time
from pathlib import Path
from ggdr.scripts.training.run_folder import RunFolder
from ggdr.torch_utils.downloads import exclusive
from ggdr.torch_utils.process_lock import process_lock
folder = Path(sys.argv[1])
with {lock}:
    print("held", flush=True)
    time.sleep(600)
"""
LOCKS = {  # what holds each, and its file; that of a build is in ops/test_build.py
    "process_lock(folder / 'lock', print)": "lock",
    "exclusive(folder / 'net.pth')": ".net.pth.lock",
    "RunFolder(folder).locked()": ".lock",
}

posix = pytest.mark.skipif(sys.platform == "win32", reason="forks, and fcntl")


def fail(holder):
    raise AssertionError(f"held by {holder}")


@contextmanager
def held_elsewhere(lock, folder):
    """A process that holds a lock, killed in the end."""
    process = python("-c", HOLD.format(lock=lock), folder)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_killed_holder_leaves_no_lock(tmp_path, lock):
    path = tmp_path / LOCKS[lock]
    with held_elsewhere(lock, tmp_path) as process:
        assert is_locked(path) is True
        assert path.read_text() == f"{process.pid} on {platform.node()}"
        assert path.name in os.listdir(tmp_path)
    assert is_locked(path) is False
    with process_lock(path, fail) as is_held:
        assert is_held


def test_a_run_folder_that_is_trained_in_says_by_whom(tmp_path):
    with held_elsewhere("RunFolder(folder).locked()", tmp_path) as process:
        with pytest.raises(CliError, match=rf"{tmp_path} is being trained in .*\(pid {process.pid} on "):
            with RunFolder(tmp_path).locked():
                pass
    with RunFolder(tmp_path).locked() as is_held:
        assert is_held


def test_who_waits_is_told_for_whom_and_goes_on_when_the_holder_is_killed(tmp_path, capsys):
    with held_elsewhere("exclusive(folder / 'net.pth')", tmp_path) as process:
        threading.Timer(0.5, process.kill).start()
        with exclusive(tmp_path / "net.pth"):
            assert process.wait() != 0
    assert f"waiting for another process that makes net.pth ({process.pid} on " in capsys.readouterr().err


@posix
def test_a_child_that_outlives_the_holders_work_holds_nothing(tmp_path):
    with process_lock(tmp_path / "lock", fail):
        if (child := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
    try:
        assert is_locked(tmp_path / "lock") is False
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_threads_of_one_process_keep_each_other_out(tmp_path):
    inside = []

    def work():
        with process_lock(tmp_path / "lock", lambda holder: None):
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == []


def test_looking_whether_a_file_is_locked_keeps_nobody_out(tmp_path):
    path, done, looks = tmp_path / "lock", threading.Event(), []
    path.touch()

    def look():
        while not done.wait(0.001):
            looks.append(is_locked(path))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(50):
            with process_lock(path, fail):
                pass
    finally:
        done.set()
        thread.join()
    assert looks and None not in looks


@posix
def test_where_there_are_no_locks_nobody_is_kept_out(tmp_path, monkeypatch):
    import fcntl

    def flock(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    partial = tmp_path / ".net.pth.1.partial"  # of another process, which may be at work
    partial.touch()
    with process_lock(tmp_path / "lock", fail) as one, process_lock(tmp_path / "lock", fail) as two:
        assert (one, two, is_locked(tmp_path / "lock")) == (False, False, None)
    with RunFolder(tmp_path / "run").locked() as is_held, exclusive(tmp_path / "net.pth"):
        assert is_held is False and RunFolder(tmp_path / "run").in_use() is None
    assert partial.exists()


def test_a_folder_to_read_from_can_be_looked_at(tmp_path, monkeypatch):
    path = tmp_path / ".lock"
    monkeypatch.setattr(os, "access", lambda *args: False)
    with held_elsewhere("RunFolder(folder).locked()", tmp_path):
        assert is_locked(path) is True
    assert is_locked(path) is False
    with exclusive(tmp_path / "missing" / "net.pth"):  # nor does a lock that cannot be made keep anyone out
        pass


def test_with_an_older_filelock_nobody_is_kept_out(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "lock_descriptor", None)
    with process_lock(tmp_path / "lock", lambda holder: None) as is_held:
        assert not is_held
    assert is_locked(tmp_path / "lock") is None
