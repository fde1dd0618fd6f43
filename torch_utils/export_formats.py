# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Networks as ONNX and torch.export files, each compared with the network that it was made from.

A file holds plain tensor operations: the compiled ones of this project exist nowhere else.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.fx.experimental._config as shape_config
from torch import Tensor, nn

from ggdr.torch_utils.ops import set_ops

TRACED_BATCH = 2  # 0 and 1 would be taken for constants
TOLERANCE = 1e-4  # of the largest value of the output, or of 1 if that is larger
MAX_ONNX_BYTES = 2**31 - 2**24  # of weights in one file: protobuf's limit, less what the graph may take
PSI = "truncation_psi"
MAX_SIZES = {"N": 2**31 - 1, "H": 2**20, "W": 2**20}  # torch 2.6 wants to be told of some

Inputs = Mapping[str, Tensor]
Run = Callable[[Inputs], Tensor]


class ExportError(ValueError):
    """A network cannot be exported as asked, or what was exported computes something else."""


@dataclass(frozen=True)
class Part:
    """What is exported of a network: a function of named tensors.

    Attributes:
        name:    of the part, as "generator".
        module:  takes the inputs under their names, in this order.
        inputs:  what each one is, for people; all but "truncation_psi" have `axes`.
        output:  its name, as "img", "ws" or "logits".
        meaning: what it is; it has `axes` too.
        example: inputs for a case, drawn from a generator; float32 on the CPU.
        cases:   that a file is compared at: numbers of images N, or sizes (N, H, W).
        traced:  the case that the graph is made with.
        axes:    sizes that may differ from call to call, by dimension.
    """

    name: str
    module: nn.Module
    inputs: dict[str, str]
    output: str
    meaning: str
    example: Callable[[Any, torch.Generator], dict[str, Tensor]]
    cases: tuple[Any, ...]
    traced: Any = TRACED_BATCH
    axes: Mapping[int, str] = field(default_factory=lambda: {0: "N"})

    @property
    def compared(self) -> str:
        """What a file is compared at, for people."""
        if isinstance(self.cases[0], int):
            return f"batches of {', '.join(map(str, self.cases))}"
        return f"images of {', '.join(map(_describe_case, self.cases))}"


def _describe_case(case: Any) -> str:
    """A number of images, or one and their size."""
    if isinstance(case, int):
        return f"{case} images"
    n, height, width = case
    return f"{width}x{height}" if n == 1 else f"{width}x{height} ({n} at once)"


# PyTorch.


def trace(part: Part) -> torch.export.ExportedProgram:
    """The graph of a part: a batch of any size, plain operations, and nothing that tells where it was made."""
    inputs = part.example(part.traced, torch.Generator().manual_seed(0))
    args, kwargs = call_arguments(part, inputs)
    shapes = _dynamic_shapes(part)
    # Else a map of 1x1, which a U-Net may have inside, would be another case than all larger ones.
    oblivious = shape_config.patch(backed_size_oblivious=True) if len(part.axes) > 1 else nullcontext()
    with _reference_ops(), torch.no_grad(), oblivious:
        program = torch.export.export(part.module, args, kwargs, dynamic_shapes=shapes, strict=False)
    for node in program.graph.nodes:  # source lines, with the paths of this machine
        node.meta.pop("stack_trace", None)
    return program


def _dynamic_shapes(part: Part) -> dict[str, dict[int, torch.export.Dim] | None]:
    """The sizes of each input that may differ from call to call."""
    axes = {dim: torch.export.Dim(name, max=MAX_SIZES[name]) for dim, name in part.axes.items()}
    return {name: None if name == PSI else axes for name in part.inputs}


def save_torch_export(part: Part, path: Path, *, metadata: Mapping[str, str] | None = None) -> float:
    """Writes a .pt2 file, with `metadata` as its extra file metadata.json; reads it again.

    Returns:
        `largest_difference`.
    """
    torch.export.save(trace(part), path, extra_files={"metadata.json": json.dumps(metadata or {})})
    module = torch.export.load(path).module()

    def run(inputs: Inputs) -> Tensor:
        args, kwargs = call_arguments(part, inputs)
        return module(*args, **kwargs)

    return largest_difference(part, run)


def call_arguments(part: Part, inputs: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Inputs as a program takes them: one after the other as far as the module's signature has no gap, then by name."""
    names = inspect.signature(part.module.forward).parameters
    args = [name for name, expected in zip(inputs, names, strict=False) if name == expected]
    return tuple(inputs[name] for name in args), {name: x for name, x in inputs.items() if name not in args}


def largest_difference(part: Part, run: Run) -> float:
    """Largest difference of a file's output from the part's own, at the part's cases.

    In units of the largest value of the output, or of 1 if that is larger; infinite if any is not finite.
    """
    worst, rng = 0.0, torch.Generator().manual_seed(1)
    for case in part.cases:
        inputs = part.example(case, rng)
        with _reference_ops(), torch.no_grad():
            expected = part.module(**inputs)
            actual = run(inputs)
        if actual.shape != expected.shape:
            raise ExportError(
                f"for {_describe_case(case)} the file gives {list(actual.shape)}, PyTorch {list(expected.shape)}"
            )
        difference = ((actual - expected).abs().max() / expected.abs().max().clamp(min=1)).item()
        worst = max(worst, difference if math.isfinite(difference) else math.inf)
    return worst


@contextmanager
def _reference_ops() -> Iterator[None]:
    previous = set_ops("reference")
    try:
        yield
    finally:
        set_ops(previous)


# ONNX.


def save_onnx(
    part: Part,
    path: Path,
    *,
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
    max_bytes: int = MAX_ONNX_BYTES,
) -> list[Path]:
    """Writes an ONNX file, which the checker of the `onnx` package has passed.

    Args:
        part:      what to write.
        path:      its name; weights above `max_bytes` go to a second file, `path` with .data behind.
        opset:     version of ONNX' operations; None: what this PyTorch writes.
        metadata:  keys and texts to store.

    Returns:
        The files written.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        ExportError: PyTorch cannot write this opset.
    """
    import onnx
    from onnxscript import optimizer

    program = trace(part)
    inputs = list(part.inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its own internals
        # optimize=True would also drop sums with numbers up to 1e-8, as every eps here.
        written = torch.onnx.export(
            program,
            dynamo=True,
            optimize=False,
            verbose=False,
            input_names=inputs,
            output_names=[part.output],
            opset_version=opset,
            dynamic_shapes=_dynamic_shapes(part),
        )
        model = written.model
        optimizer.fold_constants(model)
        optimizer.remove_unused_nodes(model)
    if opset is not None and model.opset_imports[""] != opset:
        raise ExportError(f"torch {torch.__version__} wrote opset {model.opset_imports['']}, not {opset}")

    _describe(model, part, metadata or {})
    tensors = [*part.module.parameters(), *part.module.buffers()]
    external = sum(x.numel() * x.element_size() for x in tensors) > max_bytes
    written.save(path, external_data=external)
    onnx.checker.check_model(os.fspath(path))
    return [path, *path.parent.glob(f"{path.name}.data")]


def _describe(model: Any, part: Part, metadata: Mapping[str, str]) -> None:
    """Puts names and meanings into a model of onnx_ir, and takes source lines and paths out."""
    model.producer_name, model.producer_version = "ggdr", ""
    model.doc_string = f"{part.name}: {', '.join(part.inputs)} -> {part.output}"
    model.metadata_props.clear()
    model.metadata_props.update(metadata)
    graph = model.graph
    graph.name = part.name
    graph.metadata_props.clear()
    for value, meaning in zip([*graph.inputs, *graph.outputs], [*part.inputs.values(), part.meaning], strict=True):
        value.doc_string = meaning
        for dim, size in part.axes.items():
            if value.shape.rank() and value.shape.is_dynamic(dim):
                value.shape[dim] = size  # torch 2.6 names it after the traced size
    for node in graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()


def onnx_runner(path: Path) -> Run:
    """Runs an ONNX file with onnxruntime on the CPU; ImportError if that is not installed."""
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])

    def run(inputs: Inputs) -> Tensor:
        (output,) = session.run(None, {name: x.numpy() for name, x in inputs.items()})
        return torch.from_numpy(output)

    return run


# State dicts.


def save_state_dict(state: Mapping[str, Tensor], path: Path) -> float:
    """Writes a state dict as .safetensors or, with any other ending, by torch.save; reads it again.

    Returns:
        0.0: nothing differs.

    Raises:
        ExportError: something does.
    """
    import safetensors.torch

    tensors = {name: x.detach().cpu().contiguous() for name, x in state.items()}
    if path.suffix == ".safetensors":
        path.write_bytes(safetensors.torch.save(tensors, metadata={"format": "pt"}))
        again = safetensors.torch.load_file(path)
    else:
        torch.save(tensors, path)
        again = torch.load(path, map_location="cpu", weights_only=True)
    if set(again) != set(tensors):
        raise ExportError(f"{path}: names differ from those written")
    if not all(torch.equal(again[name], x) for name, x in tensors.items()):
        raise ExportError(f"{path}: values differ from those written")
    return 0.0
