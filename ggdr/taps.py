# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Reading feature maps out of somebody else's network with forward hooks that live inside a with-block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn


class Features(Mapping[str, Tensor]):
    """Feature maps by layer name, filled while a FeatureTap is open.

    Reading one raises RuntimeError if its layer did not run, or if the tensor was overwritten in place
    (by an in-place activation, say) after the layer returned it.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._maps: dict[str, tuple[Tensor, int]] = {}

    def put(self, name: str, feat: Tensor) -> None:
        """Stores the output of a layer; raises RuntimeError if it already ran."""
        if name in self._maps:
            raise RuntimeError(
                f"layer {name!r} ran twice inside one watch block, so it is not clear which features belong to the "
                "fake images; call G and D once inside the block, and everything else (reals, R1, logging) outside"
            )
        self._maps[name] = (feat, _version(feat))

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(f"layer {name!r} is not tapped; tapped are {', '.join(self._names)}")
        if name not in self._maps:
            raise RuntimeError(f"layer {name!r} did not run inside the watch block; call G and D inside it")
        feat, version = self._maps[name]
        if _version(feat) != version:
            raise RuntimeError(
                f"the output of layer {name!r} was changed in place after the layer returned it; tap the layer "
                "that makes the change, or make that operation out of place (inplace=False)"
            )
        return feat

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class FeatureTap:
    """Collects the outputs of named layers of `root` while open.

    Example:
        >>> with FeatureTap(D, ["b8", "b16"]) as feats:
        ...     logits = D(img)
        >>> feats["b8"].shape

    A layer that returns a tuple, list or dict gives its first 4-D tensor.
    """

    def __init__(self, root: nn.Module, names: Sequence[str], *, detach: bool = False) -> None:
        """`detach`: cut the features out of the graph. Raises ValueError for a name that `root` does not have."""
        modules = dict(root.named_modules())
        for name in names:
            if name not in modules:
                raise ValueError(f"{type(root).__name__} has no layer {name!r}; it has {_listed(modules)}")
        self._layers = {name: modules[name] for name in names}
        self._detach = detach
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Features:
        if self._handles:
            raise RuntimeError("this FeatureTap is already open")
        features = Features(tuple(self._layers))
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(self._hook(name, features)))
        return features

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _hook(self, name: str, features: Features):
        def hook(module: nn.Module, args: object, output: object) -> None:
            feat = _first_map(output)
            if feat is None:
                raise RuntimeError(f"layer {name!r} returned no [N, C, H, W] tensor, got {type(output).__name__}")
            features.put(name, feat.detach() if self._detach else feat)

        return hook


def _version(feat: Tensor) -> int | None:
    """How often a tensor was written to; PyTorch does not count that in inference mode."""
    return None if feat.is_inference() else feat._version


def _first_map(output: object) -> Tensor | None:
    """The first 4-D tensor in a layer's output."""
    if isinstance(output, Tensor):
        return output if output.ndim == 4 else None
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, Sequence) and not isinstance(output, str):
        return next((feat for item in output if (feat := _first_map(item)) is not None), None)
    return None


def _listed(modules: Mapping[str, nn.Module], most: int = 40) -> str:
    """Layer names for an error message, cut where it would not fit a screen."""
    names = [name for name in modules if name]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
