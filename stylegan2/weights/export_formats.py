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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ggdr.stylegan2.discriminator import Discriminator
from ggdr.stylegan2.generator import Generator
from ggdr.torch_utils.ops import set_ops

PARTS = ("generator", "mapping", "synthesis", "discriminator")
NOISE_MODES = ("const", "none")
TRACED_BATCH = 2  # 0 and 1 would be taken for constants
TOLERANCE = 1e-4  # of the largest value of the output, or of 1 if that is larger
MAX_ONNX_BYTES = 2**31 - 2**24  # of weights in one file: protobuf's limit, less what the graph may take
PSI = "truncation_psi"
MAX_BATCH = 2**31 - 1  # torch 2.6 wants to be told of some

Inputs = Mapping[str, Tensor]
Run = Callable[[Inputs], Tensor]


class ExportError(ValueError):
    """A network cannot be exported as asked, or what was exported computes something else."""


@dataclass(frozen=True)
class Part:
    """What is exported of a network: a function of named tensors.

    Attributes:
        name:    one of PARTS.
        module:  takes the inputs under their names, in this order.
        inputs:  what each one is, for people; all but "truncation_psi" have the batch N in front.
        output:  its name: "img", "ws" or "logits".
        meaning: what it is.
        example: inputs for a batch of N images, drawn from a generator; float32 on the CPU.
        batches: sizes that a file is compared at.
    """

    name: str
    module: nn.Module
    inputs: dict[str, str]
    output: str
    meaning: str
    example: Callable[[int, torch.Generator], dict[str, Tensor]]
    batches: tuple[int, ...]


class _Generate(nn.Module):
    """z, c and perhaps truncation_psi to img, or to ws if `mapping_only`."""

    def __init__(self, G: Generator, psi: float, cutoff: int | None, noise_mode: str, *, mapping_only: bool) -> None:
        super().__init__()
        self.mapping, self.synthesis = G.mapping, None if mapping_only else G.synthesis
        self.psi, self.cutoff, self.noise_mode = psi, cutoff, noise_mode

    def forward(self, z: Tensor, c: Tensor | None = None, truncation_psi: Tensor | None = None) -> Tensor:
        psi = self.psi if truncation_psi is None else truncation_psi
        ws = self.mapping(z, c, truncation_psi=psi, truncation_cutoff=self.cutoff)
        return ws if self.synthesis is None else self.synthesis(ws, noise_mode=self.noise_mode)


class _Synthesize(nn.Module):
    """ws to img."""

    def __init__(self, G: Generator, noise_mode: str) -> None:
        super().__init__()
        self.synthesis, self.noise_mode = G.synthesis, noise_mode

    def forward(self, ws: Tensor) -> Tensor:
        return self.synthesis(ws, noise_mode=self.noise_mode)


def generator_part(
    G: Generator,
    name: str = "generator",
    *,
    truncation_psi: float | None = 1.0,
    truncation_cutoff: int | None = None,
    noise_mode: str = "const",
) -> Part:
    """A generator, or its mapping or synthesis network, to be exported.

    Args:
        G:                 float32, on the CPU, in evaluation mode.
        name:              "generator", "mapping" or "synthesis".
        truncation_psi:    fixed in the file; None makes it an input. Of no meaning to "synthesis".
        truncation_cutoff: how many of the ws are truncated; None: all.
        noise_mode:        "const" or "none". Random noise would be the runtime's own, which no seed controls.

    Raises:
        ValueError: another name or noise mode.
    """
    if name not in PARTS[:3] or noise_mode not in NOISE_MODES:
        raise ValueError(f"expected one of {PARTS[:3]} and of {NOISE_MODES}, got {name!r} and {noise_mode!r}")
    shape = f"[N, {G.img_channels}, {G.img_resolution}, {G.img_resolution}]"
    img = f"{shape} float32, images, about -1 to 1; clamp them"
    ws = f"[N, {G.num_ws}, {G.w_dim}] float32, intermediate latents, one for each layer"
    inputs = {"z": f"[N, {G.z_dim}] float32, latents, standard normal"}
    if G.c_dim:
        inputs["c"] = f"[N, {G.c_dim}] float32, one-hot labels"
    if truncation_psi is None:
        inputs[PSI] = "[] float32, 1: no truncation, 0: the mean image"

    def latents(n: int, rng: torch.Generator) -> dict[str, Tensor]:
        drawn = {"z": torch.randn([n, G.z_dim], generator=rng), "c": _labels(n, G.c_dim, rng), PSI: torch.tensor(0.7)}
        return {key: drawn[key] for key in inputs}

    def mapped(n: int, rng: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            return {"ws": G.mapping(torch.randn([n, G.z_dim], generator=rng), _labels(n, G.c_dim, rng))}

    batches = (1, 3, 5)
    if name == "synthesis":
        return Part(name, _Synthesize(G, noise_mode).eval(), {"ws": ws}, "img", img, mapped, batches)
    psi = 1.0 if truncation_psi is None else truncation_psi
    module = _Generate(G, psi, truncation_cutoff, noise_mode, mapping_only=name == "mapping").eval()
    output, meaning = ("ws", ws) if name == "mapping" else ("img", img)
    return Part(name, module, inputs, output, meaning, latents, batches)


def discriminator_part(D: Discriminator) -> Part:
    """A discriminator to be exported; float32, on the CPU, in evaluation mode.

    Where PyTorch's takes a batch, of up to the group size of its minibatch standard deviation or a multiple of it,
    the file computes the same; it takes other batches too, in groups that differ in size by one.
    """
    config = D.config
    size = [config.img_channels, config.img_resolution, config.img_resolution]
    inputs = {"img": f"[N, {', '.join(map(str, size))}] float32, images, -1 to 1"}
    if config.c_dim:
        inputs["c"] = f"[N, {config.c_dim}] float32, one-hot labels"

    def example(n: int, rng: torch.Generator) -> dict[str, Tensor]:
        drawn = {"img": torch.rand([n, *size], generator=rng) * 2 - 1, "c": _labels(n, config.c_dim, rng)}
        return {key: drawn[key] for key in inputs}

    group = config.mbstd_group_size
    batches = (1, 3, 5) if group is None or not config.mbstd_num_channels else (1, min(group, 3), 2 * group)
    meaning = "[N, 1] float32, above 0: rather real"
    return Part("discriminator", D, inputs, "logits", meaning, example, tuple(sorted(set(batches))))


def _labels(n: int, c_dim: int, rng: torch.Generator) -> Tensor:
    """One-hot [n, c_dim] float32 of random classes."""
    return torch.eye(c_dim)[torch.randint(max(c_dim, 1), [n], generator=rng)] if c_dim else torch.zeros([n, 0])


# PyTorch.


def trace(part: Part) -> torch.export.ExportedProgram:
    """The graph of a part: a batch of any size, plain operations, and nothing that tells where it was made."""
    inputs = part.example(TRACED_BATCH, torch.Generator().manual_seed(0))
    args, kwargs = call_arguments(part, inputs)
    N = torch.export.Dim("N", max=MAX_BATCH)
    shapes = {name: {0: N} if x.ndim else None for name, x in inputs.items()}
    with _reference_ops(), torch.no_grad():
        program = torch.export.export(part.module, args, kwargs, dynamic_shapes=shapes, strict=False)
    for node in program.graph.nodes:  # source lines, with the paths of this machine
        node.meta.pop("stack_trace", None)
    return program


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
    """Largest difference of a file's output from the part's own, for batches of several sizes.

    In units of the largest value of the output, or of 1 if that is larger; infinite if any is not finite.
    """
    worst, rng = 0.0, torch.Generator().manual_seed(1)
    for n in part.batches:
        inputs = part.example(n, rng)
        with _reference_ops(), torch.no_grad():
            expected = part.module(**inputs)
            actual = run(inputs)
        if actual.shape != expected.shape:
            raise ExportError(f"for {n} images the file gives {list(actual.shape)}, PyTorch {list(expected.shape)}")
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
    inputs, N = list(part.inputs), torch.export.Dim("N", max=MAX_BATCH)
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
            dynamic_shapes={name: None if name == PSI else {0: N} for name in inputs},
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
        if value.shape.rank() and value.shape.is_dynamic(0):
            value.shape[0] = "N"  # torch 2.6 names it after the traced size
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
