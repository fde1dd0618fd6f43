# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Tensor operations, each compiled or in plain PyTorch, and the choice between the two."""

from ggdr.torch_utils.ops.build import BuildError, set_ops, uses_native

__all__ = ["BuildError", "set_ops", "uses_native"]
