# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""From the options of `ggdr train` to a run folder."""

from ggdr.scripts.training.call import TrainError, train

__all__ = ["TrainError", "train"]
