# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Several processes that train as one, without wrapping any module.

After backward one flat all-reduce averages the gradients of a phase. All ranks draw the same random numbers for
the whole batch and use their interleaved share, so that the number of processes does not change the result.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor

from ggdr.torch_utils.parent_process import stop_with_parent


class LostPeer(RuntimeError):
    """Another process ended, or did not answer in time."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process' place among those that train together; a single process by default.

    Raises:
        LostPeer: in all methods in which processes exchange something, on a CPU: another one ended, or did not answer.
            On GPUs nccl ends the process by itself then.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_main(self) -> bool:
        """Rank 0 alone writes files and the terminal."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sums a tensor over all ranks, in place."""
        if self.world > 1:
            with _exchange():
                torch.distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on at least one rank."""
        if self.world == 1:
            return flag
        return bool(self.sum_(torch.tensor([float(flag)], device=self.device)).item() > 0)

    def leave(self, exit_code: int = 0) -> None:
        """Ends the communication and, of several processes, this one, at an orderly end; returns if it is alone.

        Not after an error: it could wait for the others for ever.
        """
        if self.world > 1:
            torch.distributed.destroy_process_group()
            # The interpreter's own teardown was seen to abort a process whose work was done ("terminate called
            # without an active exception"): it takes tensors away from threads of the communication library.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(exit_code)

    def barrier(self) -> None:
        """Waits for all ranks."""
        self.any(False)

    def gather_rows(self, rows: Tensor, num: int) -> Tensor:
        """The rows of all ranks in their common order, on every rank.

        Args:
            rows: [n, ...], those of a batch of `num` that rank::world takes; the same type everywhere.
            num:  rows of the whole batch.

        Returns:
            [num, ...] on the same device.
        """
        if self.world == 1:
            return rows
        most = -(-num // self.world)
        padded = rows.new_zeros([most, *rows.shape[1:]])
        padded[: len(rows)] = rows
        shares = [torch.empty_like(padded) for _ in range(self.world)]
        with _exchange():
            torch.distributed.all_gather(shares, padded)
        return torch.stack(shares, dim=1).flatten(0, 1)[:num]

    def agrees(self, text: str) -> bool:
        """Whether all ranks hold the same text."""
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
        extremes = torch.tensor([number, -number], device=self.device)
        if self.world > 1:
            with _exchange():
                torch.distributed.all_reduce(extremes, op=torch.distributed.ReduceOp.MAX)
        return int(extremes[0]) == -int(extremes[1])

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Gives every rank the tensors of rank 0, in place."""
        if self.world > 1:
            with torch.no_grad(), _exchange():
                for tensor in tensors:
                    torch.distributed.broadcast(tensor, src=0)

    def average_gradients_(self, params: Sequence[torch.nn.Parameter], *, check: bool) -> None:
        """Averages the gradients over the ranks in one flat all-reduce, in place.

        Args:
            params: those of one phase, in the same order on every rank.
            check:  first compare which of them have gradients (one more small message).

        Raises:
            RuntimeError: ranks hold gradients for different parameters.
        """
        if self.world == 1:
            return
        if check:
            has_grad = torch.tensor([p.grad is not None for p in params], dtype=torch.float32, device=self.device)
            if not torch.equal(self.sum_(has_grad.clone()), has_grad * self.world):
                raise RuntimeError(f"rank {self.rank}: ranks hold gradients for different parameters")
        grads = [p.grad for p in params if p.grad is not None]
        flat = self.sum_(torch.cat([g.reshape(-1) for g in grads])) / self.world
        for grad, mean in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(mean.reshape(grad.shape))


@contextmanager
def _exchange() -> Iterator[None]:
    """Turns the errors of communication inside into LostPeer."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.distributed.DistError) or "gloo" in str(error)):
            raise
        raise LostPeer(_describe_loss(str(error))) from error


def _describe_loss(text: str) -> str:
    """What an error of the communication library means."""
    lines = text.strip().splitlines() or [""]
    # Its first sentence, without the place in the library's source.
    cause = re.sub(r"^\[[^\]]*\]\s*", "", lines[0]).split(". ")[0][:160]
    if "timed out" in cause.lower() or "timeout" in cause.lower():
        return f"another process did not answer in time ({cause}; see --dist-timeout)"
    return f"another process ended, or cannot be reached any more ({cause})"


def init_process_group(device: str, timeout_min: float | None = None) -> ProcessGroup:
    """Joins the processes that torchrun started; a single process where it did not.

    On Linux SIGTERM comes if torchrun itself is killed.

    Args:
        device:      "cpu", "cuda", or "cuda:N" (a single process); with torchrun "cuda" takes GPU LOCAL_RANK.
        timeout_min: how long to wait for the others, here and later, in minutes; None: 10 (nccl) or 30 (gloo).

    Raises:
        ValueError: the device is not there.
        LostPeer: the others did not come.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    kind = torch.device(device)
    if kind.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} asked for, but torch {torch.__version__} sees no CUDA GPU")
    if world == 1:
        if kind.type == "cuda":
            if (kind.index or 0) >= torch.cuda.device_count():
                raise ValueError(f"device {device!r} asked for, but there are {torch.cuda.device_count()} GPUs")
            kind = torch.device("cuda", kind.index or 0)
            torch.cuda.set_device(kind)
        return ProcessGroup(device=kind)
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if kind.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise ValueError(f"process {local_rank} of this machine has no GPU; it has {torch.cuda.device_count()}")
        kind = torch.device("cuda", local_rank)
        torch.cuda.set_device(kind)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        stop_with_parent()
    backend = "nccl" if kind.type == "cuda" else "gloo"
    with _exchange():
        timeout = None if timeout_min is None else timedelta(minutes=timeout_min)
        torch.distributed.init_process_group(backend, timeout=timeout)
    return ProcessGroup(rank, world, kind)
