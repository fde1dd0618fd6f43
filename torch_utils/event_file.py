# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""TensorBoard's event files, written at once: a disk that is full ends in an error of the caller, not of a thread."""

from __future__ import annotations

import io
import itertools
import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np

from ggdr.torch_utils.appended_file import AppendedFile

FORMAT = "brain.Event:2"
_numbers = itertools.count()  # a process may begin several files in one second


class EventFile:
    """A new event file in a run folder.

    Args:
        purge_step: TensorBoard drops what older files hold from this step on; None for a new run.

    Raises:
        ImportError: tensorboard is not installed.
        OSError: here and in all methods: the file, which is named, cannot be written.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        from torch.utils.tensorboard import RecordWriter, summary
        from torch.utils.tensorboard.writer import Event, SessionLog

        self._record_writer, self._summary, self._event = RecordWriter, summary, Event
        ending = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self._file = AppendedFile(folder / f"events.out.tfevents.{ending}")
        self._append(file_version=FORMAT)
        if purge_step is not None:
            self._append(step=purge_step, file_version=FORMAT)
            self._append(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def scalar(self, name: str, value: float, step: int) -> None:
        self._append(step=step, summary=self._summary.scalar(name, value))

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Shows [H, W, C] uint8, C = 1, 3 or 4."""
        self._append(step=step, summary=self._summary.image(name, pixels, dataformats="HWC"))

    def close(self) -> None:
        self._file.close()

    def _append(self, **fields: Any) -> None:
        """One event, with the time of now."""
        record = io.BytesIO()
        self._record_writer(record).write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._file.append(record.getvalue())
