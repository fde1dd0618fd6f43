# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The weights that detectors need: read without running code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ggdr.torch_utils.downloads import WeightsError
from ggdr.torch_utils.untrusted.state_dicts import describe_misfits
from ggdr.torch_utils.untrusted.torch_files import TensorFileError, read_tensor_file

NO_WEIGHTS_HINT = "Metrics named _lite and _offline need no download."  # for those who cannot download any


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
