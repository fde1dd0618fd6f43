# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""A map over worker processes that keeps order, bounds memory, and leaves no process behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_function: Callable[[Any], Any] | None = None  # in a worker: what it computes


class WorkerDied(RuntimeError):
    """A worker process ended by itself or was killed."""


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers() -> int:
    """Processes that decode images unless told otherwise: one stays free for the training."""
    return min(4, max(1, cpu_count() - 1))


def map_in_order(function: Callable[[T], R], items: Iterable[T], num_workers: int) -> Iterator[R]:
    """function(item) of each item, in order, computed by num_workers processes.

    At most 2 * num_workers items are under way. Processes are spawned, not forked: forking a process with
    threads or CUDA is unsafe. close() ends them.

    Args:
        function: small when pickled, sent to each worker once; its module should import quickly.
        items:    picklable; may be endless.

    Raises:
        WorkerDied: a process ended, as it does when memory runs out.
        Whatever function raises.
    """
    context = multiprocessing.get_context("spawn")
    with _signals_blocked():
        pool = ProcessPoolExecutor(num_workers, context, initializer=_start, initargs=[function])
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            with _signals_blocked():
                pending.append(pool.submit(_call, item))
            if len(pending) == 2 * num_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise WorkerDied(
            "a worker process died: out of memory (use fewer workers), or started by a script "
            'without `if __name__ == "__main__":`'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Processes started inside hold Ctrl-C and SIGHUP back until they ignore them; here they arrive afterwards.

    SIGHUP, of a lost connection, would also end multiprocessing's resource tracker, which always holds it back then.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGHUP])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _start(function: Callable[[Any], Any]) -> None:
    """In a worker, before its first item."""
    global _function
    _function = function
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # A group of its own keeps away a SIGTERM to the main process and its group: saving comes first.
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End when the main process does, however it ends and whatever this one is doing."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(item: Any) -> Any:
    return _function(item)
