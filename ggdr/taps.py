# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Reading feature maps out of somebody else's network with forward hooks that live inside a with-block."""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

# What wrappers put before, and torch.compile also into, the dotted names of the layers inside.
LEADING_WRAPPERS = ("module", "_forward_module", "_original_module")
COMPILED = "_orig_mod"
PARAMETRIZATIONS = "parametrizations"  # of weights; what these modules return are no features

_clock = itertools.count()


class _Output(NamedTuple):
    """One output of a layer, and a copy for where a later layer overwrites it, unless none ever did."""

    feat: Tensor
    copy: Tensor | None
    version: int | None  # of `feat`, how often it had been written to; PyTorch does not count that in inference mode
    time: int
    grad_enabled: bool

    def is_overwritten(self) -> bool:
        """Whether it was written to since, as far as can be told."""
        return self.version is None or self.feat._version != self.version


@dataclass(frozen=True)
class _Outputs:
    """All outputs of one layer by replica: nn.DataParallel runs copies of a layer side by side, one a device."""

    by_replica: dict[torch.device | None, list[_Output]]

    @property
    def calls(self) -> int:
        return max((len(outputs) for outputs in self.by_replica.values()), default=0)


class Features(Mapping[str, Tensor]):
    """Feature maps by layer name, filled while a FeatureTap is open.

    They are what the layers returned, also where an in-place operation has overwritten that since: each is copied until
    a block, of which there may be several, has shown that nothing overwrites it. Reading one raises RuntimeError if its
    layer did not run, or if it is overwritten later than that.
    """

    def __init__(self, names: Sequence[str], calls: int = 1, overwritten: dict[str, bool] | None = None) -> None:
        """`overwritten`: by layer, whether an output of it was found overwritten; those where none was get no copy."""
        self._outputs = {name: _Outputs({}) for name in names}
        self._calls, self._call = calls, 0
        self._overwritten = {} if overwritten is None else overwritten

    @property
    def num_calls(self) -> int:
        """How often each layer is expected to run."""
        return self._calls

    def call(self, index: int) -> Features:
        """The same features, of the `index`-th time that the layers ran; self is that of the first."""
        if not 0 <= index < self._calls:
            raise IndexError(f"layers are watched for {self._calls} calls, there is no call {index}")
        view = Features((), self._calls, self._overwritten)
        view._outputs, view._call = self._outputs, index
        return view

    def put(self, name: str, feat: Tensor, replica: torch.device | None = None) -> None:
        """Stores an output of a layer; raises RuntimeError if it has run often enough already."""
        outputs = self._outputs[name].by_replica.setdefault(replica, [])
        if len(outputs) == self._calls:
            times = "twice" if self._calls == 1 else f"{self._calls + 1} times"
            raise RuntimeError(
                f"layer {name!r} ran {times} inside one watch block, so it is not clear which features belong to the "
                "fake images; call G and D once inside the block, and everything else (reals, R1, logging) outside; "
                "if D runs once a crop, say how often: watch(calls=...)"
            )
        version = None if feat.is_inference() else feat._version
        spared = version is not None and self._overwritten.get(name) is False
        copied = None if spared else feat.clone()
        outputs.append(_Output(feat, copied, version, next(_clock), torch.is_grad_enabled()))

    def times(self) -> list[int]:
        """When layers ran, on a clock that all Features share."""
        return [output.time for name in self for output in self._all(name)]

    def without_gradients(self) -> list[str]:
        """Layers that ran while gradients were off, as in torch.no_grad or a reentrant checkpoint."""
        return [
            name
            for name in self
            if any(not (x.grad_enabled or self._as_returned(name, x).requires_grad) for x in self._all(name))
        ]

    def look_for_overwritten(self) -> None:
        """Notes of each layer that ran whether an output of it was overwritten, now or earlier."""
        for name in self:
            known = [output for output in self._all(name) if output.version is not None]
            if known:
                found = any(output.is_overwritten() for output in known)
                self._overwritten[name] = found or self._overwritten.get(name, False)

    def _as_returned(self, name: str, output: _Output) -> Tensor:
        """The output as the layer returned it."""
        if not output.is_overwritten():
            # What a reentrant checkpoint returns is given its place in the graph afterwards, which the copy lacks.
            return output.feat
        if output.version is not None:
            self._overwritten[name] = True
        if output.copy is None:
            raise RuntimeError(
                f"what layer {name!r} returned was overwritten in place, for the first time since it is watched, and "
                "there is no copy of it: those are made of maps that were overwritten before. From now on this one "
                "is copied, so run the watch block again"
            )
        return output.copy

    def _all(self, name: str) -> list[_Output]:
        return [output for outputs in self._outputs[name].by_replica.values() for output in outputs]

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._outputs:
            raise KeyError(f"layer {name!r} is not tapped; tapped are {', '.join(self._outputs)}")
        layer = self._outputs[name]
        if layer.calls <= self._call:
            ran = "did not run" if not layer.calls else f"ran {layer.calls} times, not {self._calls},"
            raise RuntimeError(
                f"layer {name!r} {ran} inside the watch block; call G and D inside it: the networks that GGDR was "
                "attached to, no copies of them, and so that they run this layer"
            )
        parts = []
        for _, outputs in sorted(layer.by_replica.items(), key=lambda item: item[0] and item[0].index or 0):
            if len(outputs) <= self._call:
                continue  # a batch too small for all devices
            parts.append(self._as_returned(name, outputs[self._call]))
        return parts[0] if len(parts) == 1 else torch.cat([part.to(parts[0].device) for part in parts])

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)


class FeatureTap:
    """Collects the outputs of named layers of `root` while open.

    Example:
        >>> with FeatureTap(D, ["b8", "b16"]) as feats:
        ...     logits = D(img)
        >>> feats["b8"].shape

    A layer that returns a tuple, list or dict gives its first 4-D tensor. Names are those of the network itself,
    whether or not DataParallel, DistributedDataParallel, torch.compile or a framework has wrapped it.
    """

    def __init__(self, root: nn.Module, names: Sequence[str], *, detach: bool = False) -> None:
        """`detach`: cut the features out of the graph.

        Raises:
            ValueError: a name that `root` does not have, or a layer inside TorchScript.
        """
        exact, plain = dict(root.named_modules()), named_layers(root)
        self._layers: dict[str, nn.Module] = {}
        for name in names:
            layer = exact.get(name, plain.get(plain_name(name)))
            if layer is None:
                raise ValueError(f"{type(root).__name__} has no layer {name!r}; it has {_listed(plain)}")
            self._layers[name] = hookable(layer, f"layer {name!r}")
        self._detach = detach
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._calls = 1
        self._root = root
        self._overwritten: dict[bool, dict[str, bool]] = {True: {}, False: {}}  # when training, and when not

    def repeated(self, calls: int) -> FeatureTap:
        """The same tap, for layers that run `calls` times in each with-block."""
        tap = copy.copy(self)
        tap._calls, tap._handles = calls, []
        return tap

    def __enter__(self) -> Features:
        if self._handles:
            raise RuntimeError("this FeatureTap is already open")
        self._open = Features(tuple(self._layers), self._calls, self._overwritten[self._root.training])
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(self._hook(name, self._open)))
        return self._open

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._open.look_for_overwritten()
        del self._open

    def _hook(self, name: str, features: Features):
        def hook(module: nn.Module, args: object, output: object) -> None:
            feat = first_map(output)
            if feat is None:
                shape = f" of shape {tuple(output.shape)}" if isinstance(output, Tensor) else ""
                raise RuntimeError(
                    f"layer {name!r} returned no [N, C, H, W] tensor, got {type(output).__name__}{shape}"
                )
            replica = feat.device if getattr(module, "_is_replica", False) else None
            features.put(name, feat.detach() if self._detach else feat, replica)

        return hook


def uncompiled() -> AbstractContextManager[object]:
    """Modules compiled by torch.compile run eagerly inside, where hooks see their layers.

    Raises:
        RuntimeError: inside a function that is being compiled.
    """
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    message = (
        "ggdr.watch() cannot be part of a compiled function, where hooks are not heeded; compile G and D themselves "
        "instead of the training step"
    )
    # While the function is traced, and again when the rest of it runs.
    if torch.compiler.is_compiling():
        raise RuntimeError(message)
    try:
        return torch.compiler.set_stance("force_eager")
    except RuntimeError as error:
        raise RuntimeError(message) from error


def hookable(module: nn.Module, what: str) -> nn.Module:
    """The module; ValueError if it is TorchScript, which runs no hooks."""
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError(
            f"{what} is TorchScript (torch.jit), which GGDR cannot look into; attach to the network that it was made "
            "from, and run that inside `watch`"
        )
    return module


def plain_name(name: str) -> str:
    """A layer's name without what wrappers add: "module.b8" and "_orig_mod.b8" are "b8"."""
    parts = [part for part in name.split(".") if part != COMPILED]
    while len(parts) > 1 and parts[0] in LEADING_WRAPPERS:
        parts = parts[1:]
    return "" if parts and parts[0] in LEADING_WRAPPERS else ".".join(parts)


def named_layers(root: nn.Module) -> dict[str, nn.Module]:
    """All layers of a network by the names that they have in the network itself, wrapped or not."""
    layers: dict[str, nn.Module] = {}
    for name, module in root.named_modules():
        if PARAMETRIZATIONS not in name.split("."):
            layers.setdefault(plain_name(name), module)
    return layers


def first_map(output: object) -> Tensor | None:
    """The first 4-D tensor in a layer's output."""
    return next(maps_in(output), None)


def maps_in(output: object) -> Iterator[Tensor]:
    """All 4-D tensors in a layer's output, also in tuples, lists and dicts."""
    if isinstance(output, Tensor):
        if output.ndim == 4:
            yield output
    elif isinstance(output, Mapping):
        yield from maps_in(tuple(output.values()))
    elif isinstance(output, Sequence) and not isinstance(output, str):
        for item in output:
            yield from maps_in(item)


def _listed(modules: Mapping[str, nn.Module], most: int = 40) -> str:
    """Layer names for an error message, cut where it would not fit a screen."""
    names = [name for name in modules if name]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
