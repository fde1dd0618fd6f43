# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Options of the commands that translate images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import click

from ggdr.scripts.errors import OptionError, nearest
from ggdr.scripts.options.numbers import FiniteFloat
from ggdr.scripts.options.parameters import CheckedText

# Hosts that `ggdr translate train` trains; the first is the default.
MODELS = ("pix2pix", "cyclegan", "combogan", "oasis", "cc-fpse")
GENERATORS = ("unet", "resnet")
COMBOGAN_BLOCKS = ("encoder_blocks", "decoder_blocks", "shared_encoder_blocks", "shared_decoder_blocks")
MAX_EPOCHS = 10**6
MAX_NAME = 100  # characters of a domain's name
WEIGHT = FiniteFloat(min=0, max=1e6)  # of a loss


class ModelOption(NamedTuple):
    """An option that only some models have, and what it is for."""

    models: tuple[str, ...]
    purpose: str


# By parameter names.
MODEL_OPTIONS = {
    "direction": ModelOption(("pix2pix", "oasis", "cc-fpse"), "says which image of a pair is the input"),
    "classes": ModelOption(("pix2pix", "oasis", "cc-fpse"), "says how many classes the label maps have"),
    "ignore_label": ModelOption(("pix2pix", "oasis", "cc-fpse"), "says which values in label maps are no class"),
    "l1_weight": ModelOption(("pix2pix",), "weighs the distance from the target of a pair"),
    "generator": ModelOption(("pix2pix", "cyclegan"), "says which kind of network G is"),
    "downs": ModelOption(("pix2pix", "cyclegan"), "says how often a U-Net halves the image"),
    "blocks": ModelOption(("pix2pix", "cyclegan"), "says how many residual blocks a ResNet has"),
    "norm": ModelOption(("pix2pix", "cyclegan", "oasis", "cc-fpse"), "says which norms the networks have"),
    "dropout": ModelOption(("pix2pix", "cyclegan"), "says whether G has noise"),
    "gan_loss": ModelOption(("pix2pix", "cyclegan", "combogan"), "says which adversarial loss there is"),
    "gan_weight": ModelOption(("pix2pix", "cyclegan"), "weighs the adversarial losses of G"),
    "cycle_weight": ModelOption(("cyclegan", "combogan"), "weighs the distance of an image from what comes back of it"),
    "identity_weight": ModelOption(
        ("cyclegan", "combogan"), "weighs what G changes in images that are its target's already"
    ),
    "pool_size": ModelOption(("cyclegan", "combogan"), "says how many older fakes D is shown"),
    "latent_weight": ModelOption(("combogan",), "weighs the distance of a fake's code from the image's"),
    "forward_weight": ModelOption(("combogan",), "weighs the coarse distance of a fake from the image"),
    "labelmix_weight": ModelOption(("oasis",), "weighs how D is to take mixed images for mixtures"),
    "feature_weight": ModelOption(("cc-fpse",), "weighs the distance of D's features from those of the target"),
    "domains": ModelOption(("cyclegan", "combogan"), "chooses domains of the data"),
    "add_domain": ModelOption(("combogan",), "names the domain that a trained network gets"),
    **{name: ModelOption(("combogan",), "says how many residual blocks there are") for name in COMBOGAN_BLOCKS},
}


def refuse_other_models(command: Mapping[str, Any], model: str) -> None:
    """Raises OptionError where an option is given that has no meaning for a model.

    Args:
        command: the options by parameter name; None where not given.
    """
    for name, (models, purpose) in MODEL_OPTIONS.items():
        if model not in models and command[name] is not None:
            option = f"--{name.replace('_', '-')}"
            others = " and ".join([*([", ".join(models[:-1])] if models[:-1] else []), models[-1]])
            raise OptionError(option, f"has no meaning for {model}; in {others} it {purpose}")


class NamedChoice(click.Choice):
    """One of several names; the message has the nearest."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value not in self.choices:
            expected = " or ".join(self.choices)
            self.fail(f"expected {expected}, got {value!r}{nearest(str(value), self.choices)}", param, ctx)
        return value


def parse_epochs(text: str) -> tuple[int, int]:
    """Epochs with a constant learning rate, and epochs in which it falls to 0: "100+50" is (100, 50), "100" (100, 0).

    Raises:
        ValueError: anything else, no epoch at all, or more than a million.
    """
    match = re.fullmatch(r"([0-9]{1,7})(?:\+([0-9]{1,7}))?", text)
    constant, falling = (0, 0) if match is None else (int(match[1]), int(match[2] or 0))
    if not 1 <= constant + falling <= MAX_EPOCHS:
        raise ValueError(
            f"expected epochs with a constant learning rate + epochs with a falling one, such as 100+100 or 50, "
            f"1 to {MAX_EPOCHS} in all; got {text!r}"
        )
    return constant, falling


def parse_cycle_weight(text: str) -> tuple[float, float]:
    """Weights of the forward and the backward cycle: "10" is (10, 10), "10,0" the forward cycle alone.

    Raises:
        ValueError: anything else.
    """
    parts = text.split(",")
    try:
        if len(parts) > 2:
            raise ValueError
        weights = [WEIGHT.convert(part, None, None) for part in parts]
    except (click.BadParameter, ValueError) as error:
        raise ValueError(f"expected one weight, or FORWARD,BACKWARD, from 0 to {WEIGHT.max:g}; got {text!r}") from error
    return weights[0], weights[-1]


def parse_names(text: str) -> list[str]:
    """Names of domains: "horse,zebra" is ["horse", "zebra"].

    Raises:
        ValueError: one is empty, long, or no text that can be shown as it is.
    """
    names = text.split(",")
    for name in names:
        if not name or not name.isprintable() or len(name) > MAX_NAME or name != name.strip():
            raise ValueError(
                f"expected names of 1 to {MAX_NAME} characters, as in horse,zebra; got {name!r} in {text!r}"
            )
    return names


def parse_domains(text: str) -> list[str]:
    """As `parse_names`, which it raises as, and ValueError where there are not two names or more, all different."""
    names = parse_names(text)
    if len(set(names)) != len(names) or len(names) < 2:
        raise ValueError(f"expected two different names or more, as in horse,zebra; got {text!r}")
    return names


class Epochs(CheckedText):
    """The text of `parse_epochs`."""

    name, parse = "epochs", staticmethod(parse_epochs)


class CycleWeight(CheckedText):
    """The text of `parse_cycle_weight`."""

    name, parse = "weight", staticmethod(parse_cycle_weight)


class DomainNames(CheckedText):
    """The text of `parse_domains`."""

    name, parse = "domains", staticmethod(parse_domains)
