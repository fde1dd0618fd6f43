# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The seam between a host and its regularisers: any number of them, each a term of D's loss on fakes or on reals."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from ggdr.torch_utils.gan import Panel, PhaseOutput, Warp


class Regularizer(Protocol):
    """What a host needs of GGDR, or of the next idea. See OnReals for one that looks at real images."""

    name: str  # of the loss term, of its weights in snapshots, and of what it reports
    gain: float  # what `penalty` was multiplied by; divided out for the report, so never 0
    quantity: str  # what is penalised, as "distance"; see `reported_name`

    def watch(self) -> AbstractContextManager[Any]:
        """Hooks live inside; G and D run once each."""

    def penalty(self, feats: Any, warp: Warp | None = None, *, fakes: slice | None = None) -> Tensor:
        """[N] float32, added to the discriminator's loss on fakes; `fakes` is as in `Regularizers.penalties`."""

    def parameters(self) -> Iterable[Parameter]:
        """Trained in the phase that has the penalty."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


@runtime_checkable
class OnReals(Protocol):
    """A regulariser whose penalty is on the real images that D sees in the same pass, in place of the fakes.

    Attributes:
        of_reals: what of the host's batch it is given, as "img".
    """

    of_reals: str

    def penalty(self, feats: Any, known: Any, warp: Warp | None = None, *, reals: slice | None = None) -> Tensor:
        """[N] float32; `known` is of the batch, `warp` and `reals` are as in Reals."""


@runtime_checkable
class Drawing(Protocol):
    """A regulariser on fakes that needs random numbers: its `penalty` takes them as `draws`."""

    def draw(self, n: int, *, generator: torch.Generator) -> Any:
        """For n images: a nest of tensors [n, ...], split along with the images."""


class Reals(NamedTuple):
    """The real images that D sees in the same pass as G's.

    Attributes:
        batch: of the data, by what is known of each image: "img" [N, C, H, W] before augmentation, and so on.
        where: in D's batch they are.
        warp:  the geometry that they went through before D.
    """

    batch: Mapping[str, Any]
    where: slice | None = None
    warp: Warp | None = None


def reported_name(item: Regularizer) -> str:
    """NAME/QUANTITY, under which a run reports what a regulariser penalises."""
    return f"{item.name}/{item.quantity}"


class Attachment(NamedTuple):
    """Where regularisers take hold of a host: one generator, and the discriminator that judges its images.

    Attributes:
        probe:   runs D(G(.)) once, on a batch of one.
        guides:  layers of G by the size of their feature maps, in pixels.
        encoder: layers of D, from the image down.
        G_ema:   the moving average of G; None if the host keeps none.
        called:  the part of G that the host calls, and that `G_ema` has too; "" if it is G itself.
    """

    G: nn.Module
    D: nn.Module
    probe: Callable[[], object]
    guides: Mapping[int, str]
    encoder: Sequence[str]
    G_ema: nn.Module | None = None
    called: str = ""


class Regularizers:
    """Those of one pair of a generator and a discriminator, watched together.

    Args:
        items:  the regularisers; ValueError if two have one name.
        panels: of what they report.
    """

    def __init__(self, items: Sequence[Regularizer] = (), panels: Sequence[Panel] = ()) -> None:
        self.by_name = {item.name: item for item in items}
        if len(self.by_name) < len(items):
            raise ValueError(f"expected regularisers of different names, got {[item.name for item in items]}")
        self.panels = list(panels)

    def check_names(self, taken: Collection[str]) -> None:
        """Refuses names that the host's own networks or loss terms have, with a ValueError."""
        clashes = [name for name in self.by_name if name in taken]
        if clashes:
            raise ValueError(
                f"regulariser {', '.join(map(repr, clashes))}: the host has networks or loss terms of that name; "
                f"expected another than {', '.join(sorted(taken))}"
            )

    def __iter__(self) -> Iterator[Regularizer]:
        return iter(self.by_name.values())

    @contextmanager
    def watch(self) -> Iterator[dict[str, Any]]:
        """What each regulariser sees, by its name; G runs once inside, and then D once.

        D runs on G's images, and on real ones too if there are regularisers on reals.
        """
        with ExitStack() as stack:
            yield {item.name: stack.enter_context(item.watch()) for item in self}

    def draw(self, n: int, generator: torch.Generator) -> dict[str, Any]:
        """Random numbers of those that need some, by name, for the batch of n images of all processes.

        Args:
            generator: the host's, on the CPU. It stays where it is: each draw is from a generator of its own, seeded by
                       where that stands, so that all else in a run is as without these regularisers.
        """
        found = {}
        for item in self:
            if isinstance(item, Drawing):
                own = torch.Generator()
                own.set_state(generator.get_state())
                seed = int(torch.randint(2**62, [], generator=own)) ^ zlib.crc32(item.name.encode())
                found[item.name] = item.draw(n, generator=own.manual_seed(seed))
        return found

    def penalties(
        self,
        feats: Mapping[str, Any],
        warp: Warp | None = None,
        *,
        fakes: slice | None = None,
        reals: Reals | None = None,
        draws: Mapping[str, Any] | None = None,
    ) -> PhaseOutput:
        """A loss term [N] by each regulariser's name, and the quantity that it penalises.

        Args:
            feats: from `watch`.
            warp:  the geometry that G's images went through between G and D.
            fakes: where in D's batch G's images are; None if they are all of it.
            reals: the real images of the pass; None if there are none, or no regulariser asks for them.
            draws: this share's part of `draw`.

        Raises:
            ValueError: a gain is 0, or a regulariser needs reals and there are none.
        """
        losses = {}
        for item in self:
            if item.gain == 0:
                raise ValueError(f"regulariser {item.name!r}: expected a gain other than 0, to report {item.quantity}")
            losses[item.name] = self._penalty(item, feats[item.name], warp, fakes, reals, draws or {})
        observed = {reported_name(item): losses[item.name].detach() / item.gain for item in self}
        return PhaseOutput(losses, observed)

    def _penalty(
        self,
        item: Regularizer,
        feats: Any,
        warp: Warp | None,
        fakes: slice | None,
        reals: Reals | None,
        draws: Mapping[str, Any],
    ) -> Tensor:
        if isinstance(item, OnReals):
            if reals is None:
                raise ValueError(f"regulariser {item.name!r} looks at real images, and this host shows it none")
            return item.penalty(feats, reals.batch[item.of_reals], warp=reals.warp, reals=reals.where)
        if isinstance(item, Drawing):
            return item.penalty(feats, warp=warp, fakes=fakes, draws=draws[item.name])
        return item.penalty(feats, warp=warp, fakes=fakes)

    def parameters(self) -> Iterator[Parameter]:
        """Of all of them, for the discriminator's optimiser."""
        return (p for item in self for p in item.parameters())

    def state_dicts(self) -> dict[str, dict[str, Tensor]]:
        """Weights by name, beside those of the networks."""
        return {item.name: item.state_dict() for item in self}

    def load_state_dicts(self, states: Mapping[str, dict[str, Tensor]]) -> None:
        """Takes back what `state_dicts` gave; all names must be there."""
        for item in self:
            item.load_state_dict(states[item.name])
