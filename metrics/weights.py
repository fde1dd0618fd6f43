# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The weights that metrics need: where they are published, and how they are read without running code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ggdr.torch_utils.downloads import WeightsError, WeightsFile
from ggdr.torch_utils.untrusted.state_dicts import describe_misfits
from ggdr.torch_utils.untrusted.torch_files import TensorFileError, read_tensor_file

HINT = "Metrics named _offline need no weights."
INCEPTION = WeightsFile(
    name="pt_inception-2015-12-05-6726825d.pth",
    urls=(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    size=95_628_359,
    what="the Inception network of the FID",
    by_hand="give its path with --inception FILE",
    hint=HINT,
    aliases=("weights-inception-2015-12-05-6726825d.pth",),
)
VGG16 = WeightsFile(
    name="vgg16-397923af.pth",
    urls=("https://download.pytorch.org/models/vgg16-397923af.pth",),
    sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    size=553_433_881,
    what="VGG16",
    by_hand="give its path with --vgg FILE",
    hint=HINT,
)
LPIPS_VGG = WeightsFile(
    name="lpips-vgg-v0.1-a78928a0.pth",
    urls=("https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth",),
    sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    size=7289,
    what="the linear layers of LPIPS (VGG, v0.1)",
    by_hand="give its path with --lpips FILE",
    hint=HINT,
)


def load_weights(
    path: Path, shapes: Mapping[str, tuple[int, ...]], *, what: str, ignored: str | None = None
) -> dict[str, Tensor]:
    """Tensors of a state dict in float32, on the CPU, in the order of `shapes`. Code in the file is not run.

    Args:
        shapes:  names and shapes of all tensors.
        what:    the file is expected to hold, for messages.
        ignored: pattern of names that may be there too, and are left out.

    Raises:
        WeightsError: the file cannot be read, is no state dict, or one with other names or shapes.
    """
    try:
        state = read_tensor_file(path)
    except TensorFileError as error:
        raise WeightsError(f"{error}; expected {what}") from error
    except OSError as error:
        raise WeightsError(f"{path}: not readable ({error.strerror}); expected {what}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: not a state dict of tensors by name; expected {what}")
    state = {name: t for name, t in state.items() if name in shapes or not (ignored and re.search(ignored, name))}
    wrong = describe_misfits(state, shapes)
    if wrong:
        raise WeightsError(f"{path}: not {what}; tensors {wrong}")
    return {name: state[name].float() for name in shapes}
