# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What a GPU would do for a piece of PyTorch code, found by running it on the meta device, where nothing is computed.

Counted is each operation that PyTorch dispatches: kernels, bytes that they read and write if nothing stays in a cache,
and arithmetic. What happens inside an operation is taken from a table of the few that are more than one kernel;
workspaces, and copies that cuDNN or a compiled operation makes to change a layout, are not seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, Function
from torch.utils._python_dispatch import TorchDispatchMode

from ggdr.torch_utils.timing.flops import _Counter
from ggdr.torch_utils.timing.live_memory import LiveMemory

_ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
# They do not read what they write to.
_OVERWRITING = {"_foreach_copy_", "copy_", "fill_", "normal_", "random_", "uniform_", "zero_"}
# Operations that are two kernels: the first fills the result, the second copies into it, or adds to it.
_FILL_AND_COPY = {"constant_pad_nd", "select_backward", "slice_backward"}
_FILL_AND_ADD = {"baddbmm", "grid_sampler_2d_backward"}
# Kernels of this project's operations that have several. Where the first sums by strips or filters, the second takes
# that up; those of the product are PyTorch's, of which one moves maps.
_OWN_KERNELS = {
    "ggdr::modulate_backward": 2,
    "ggdr::demodulated_act_backward": 2,
    "ggdr::demodulation": 2,
    "ggdr::demodulation_styles_grad_backward": 4,
    "ggdr::modulated_product": 2,
}
# Operations with a kernel for each layer, and how many more.
_LAYERS = {"ggdr::linear_layers": 0, "ggdr::linear_layers_inputs_grad": 1, "ggdr::linear_layers_weight_grad": 0}
# Of ATen's multi_tensor_apply: most tensors in a launch by number of lists, blocks in a launch, elements in a block.
_LAUNCH_TENSORS, _LAUNCH_BLOCKS, _BLOCK_ELEMENTS = (110, 64, 48, 36, 30), 320, 65536

MATH = {torch.float16: "fp16", torch.bfloat16: "bf16"}  # names of types in which tensor cores multiply


class Operation(NamedTuple):
    """One operation on a GPU."""

    name: str  # as "convolution", "ggdr::bias_act"
    kernels: int
    num_bytes: int  # read and written
    flops: int  # of convolutions and matrix products
    math: str  # type of their factors: "fp16", "bf16", "tf32" or "fp32"


@dataclass
class Piece:
    """What happened in a part of the code.

    Attributes:
        operations: those that launch kernels.
        host_ops:   all operations that were dispatched, also views, allocations and those on the CPU.
        functions:  calls of autograd functions in Python, forward and backward, this project's operations among them.
        peak:       most bytes of tensors that were alive at once.
    """

    operations: list[Operation] = field(default_factory=list)
    host_ops: int = 0
    functions: int = 0
    peak: int = 0


class OperationTrace(TorchDispatchMode):
    """Records what runs while it is open, in pieces.

    Args:
        tf32: whether convolutions of float32 tensors multiply in TF32.
    """

    def __init__(self, *, tf32: bool = False) -> None:
        super().__init__()
        self.tf32 = tf32
        self.memory = LiveMemory()
        self.pieces: dict[str, Piece] = {}
        self._flops = _Counter()
        self.begin("")

    def begin(self, name: str) -> None:
        """What runs from now on belongs to a piece, or goes on with it."""
        self._piece = self.pieces.setdefault(name, Piece())
        self.memory.restart_peak()
        self._piece.peak = max(self._piece.peak, self.memory.now)

    def __enter__(self) -> OperationTrace:
        self._restore = [(kind, kind.__dict__["apply"]) for kind in (Function, BackwardCFunction)]
        forward, backward = (apply for _, apply in self._restore)

        def count_forward(cls: type, *args: Any, **kwargs: Any) -> Any:
            self._piece.functions += 1
            return forward.__get__(None, cls)(*args, **kwargs)

        def count_backward(node: Any, *args: Any) -> Any:
            self._piece.functions += 1
            return backward(node, *args)

        Function.apply, BackwardCFunction.apply = classmethod(count_forward), count_backward
        return super().__enter__()

    def __exit__(self, *exc: Any) -> None:
        for kind, apply in self._restore:
            kind.apply = apply
        super().__exit__(*exc)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        before = self._flops.total
        out = self._flops.__torch_dispatch__(func, types, args, kwargs)
        if func is torch.ops.aten.convolution.default:
            out = _as_cudnn_lays_it_out(out, *args[:2])
        self._piece.host_ops += not _is_kept_result(func)
        results = [x for x in _tensors(out) if x.device.type == "meta"]
        self.memory.see(results)
        self._piece.peak = max(self._piece.peak, self.memory.peak)
        operation = self._operation(func, args, kwargs, out, results, self._flops.total - before)
        if operation is not None:
            self._piece.operations.append(operation)
        return out

    def _operation(
        self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any, results: list[Tensor], flops: int
    ) -> Operation | None:
        """None for what launches nothing: views, allocations, and work of the CPU."""
        packet = func.overloadpacket
        is_own = func.namespace == "ggdr"
        name = f"ggdr::{packet.__name__}" if is_own else packet.__name__
        read, written = _access(func, args, kwargs)
        touched = [*read, *written, *results]
        if name in _ALLOCATIONS or not touched or not any(x.numel() for x in touched):
            return None
        if not written and _addresses(results) <= _addresses(read):
            return None  # a view
        new = [x for x in results if x.untyped_storage()._cdata not in _addresses(written)]
        num_bytes = sum(map(_bytes, [*read, *written, *new]))
        kernels = 1
        if name.startswith(("_foreach_", "_fused_")):
            kernels = _multi_tensor_launches(args) + (name == "_foreach_norm")  # whose partial sums are added at last
        elif name == "convolution_backward":
            kernels = sum(made is not None for made in out)
            num_bytes = _convolution_backward_bytes(*args[:3], out)
        elif name in _FILL_AND_COPY:
            kernels = 2
            num_bytes += sum(map(_bytes, read))
        elif name in _FILL_AND_ADD:
            kernels = 2
            num_bytes += 2 * sum(map(_bytes, new))
        elif name in _LAYERS:
            kernels = max(len(arg) for arg in args if isinstance(arg, (list, tuple))) + _LAYERS[name]
        elif name in _OWN_KERNELS:
            kernels = _OWN_KERNELS[name]
        elif name == "ggdr::modulated_product_grad":
            kernels = 1 + 2 * sum(args[-2:])  # a product of maps; of weights and of styles, if asked for, two passes
        elif name == "ggdr::bias_act_grad" and args[-1] is not None:
            kernels = 2  # torch's sum by channel is the second
            num_bytes += _bytes(out[0])
        elif name == "ggdr::upfirdn2d" and args[1].ndim == 1:
            kernels = 2  # one axis after the other
            num_bytes += _bytes(args[0]) + _bytes(out)
        return Operation(name, kernels, num_bytes, flops, self._math(name, touched))

    def _math(self, name: str, tensors: list[Tensor]) -> str:
        """The type of an operation's products."""
        if self.tf32 and name.startswith("convolution") and tensors[0].dtype == torch.float32:
            return "tf32"
        return MATH.get(tensors[0].dtype, "fp32")


def _is_kept_result(func: Any) -> bool:
    """Whether autograd keeps a result, or hands a backward pass one that it kept: no operation, but modes see a detach.

    A detach that is dispatched has passed autograd's own kernel, inside of which that key is excluded.
    """
    autograd = torch._C.DispatchKey.AutogradFunctionality
    return func is torch.ops.aten.detach.default and not torch._C._dispatch_tls_is_dispatch_key_excluded(autograd)


def _as_cudnn_lays_it_out(out: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """A convolution's result in the memory format that it has on a GPU; on the meta device it is contiguous."""
    is_channels_last = out.device.type == "meta" and any(map(_has_channels_last, (x, w)))
    return torch.empty_like(out, memory_format=torch.channels_last) if is_channels_last else out


def _has_channels_last(x: Tensor) -> bool:
    """Whether the channels of images or weights are what lies closest in memory, also where there are gaps."""
    return x.ndim == 4 and x.shape[1] > 1 and x.stride(1) == 1 and x.stride(3) >= x.shape[1]


def _tensors(nest: Any) -> Iterator[Tensor]:
    """All tensors in lists and tuples."""
    if isinstance(nest, Tensor):
        yield nest
    elif isinstance(nest, (list, tuple)):
        for item in nest:
            yield from _tensors(item)


def _access(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors on the device that an operation reads, and that it writes in place; some may be in both."""
    read: list[Tensor] = []
    written: list[Tensor] = []
    arguments = func._schema.arguments
    values = [*zip(arguments, args, strict=False), *((a, kwargs[a.name]) for a in arguments if a.name in kwargs)]
    for argument, value in values:
        tensors = [x for x in _tensors(value) if x.device.type == "meta"]
        # Adam's schema says that it writes to gradients, which it does only where it scales them.
        writes = argument.alias_info is not None and argument.alias_info.is_write and argument.name != "grads"
        if writes:
            written += tensors
        if not (writes and (argument.is_out or func.overloadpacket.__name__ in _OVERWRITING)):
            read += tensors
    return read, written


def _addresses(tensors: Sequence[Tensor]) -> set[int]:
    return {x.untyped_storage()._cdata for x in tensors}


def _bytes(x: Tensor) -> int:
    """Bytes of memory behind a tensor: what is expanded counts once."""
    size = x.element_size()
    for length, stride in zip(x.shape, x.stride(), strict=True):
        size *= length if stride else min(length, 1)
    return size


def _convolution_backward_bytes(grad: Tensor, x: Tensor, w: Tensor, out: Sequence[Tensor | None]) -> int:
    """Each gradient is a kernel of its own."""
    others = (w, x, None)
    return sum(
        _bytes(grad) + (0 if other is None else _bytes(other)) + _bytes(made)
        for other, made in zip(others, out, strict=True)
        if made is not None
    )


def _multi_tensor_launches(args: Sequence[Any]) -> int:
    """Launches of an operation on lists of tensors, which work on many tensors at once."""
    lists = [arg for arg in args if isinstance(arg, (list, tuple)) and arg and isinstance(arg[0], Tensor)]
    most_tensors = _LAUNCH_TENSORS[min(len(lists), len(_LAUNCH_TENSORS)) - 1]
    launches = tensors = blocks = 0
    for x in lists[0]:
        tensors += 1
        left = -(-x.numel() // _BLOCK_ELEMENTS)
        while left > 0:
            taken = min(left, _LAUNCH_BLOCKS - blocks)
            left, blocks = left - taken, blocks + taken
            if blocks == _LAUNCH_BLOCKS or (tensors == most_tensors and left == 0):
                launches, blocks, tensors = launches + 1, 0, 1 if left else 0
    return launches + (blocks > 0)
