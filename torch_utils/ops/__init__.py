# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Tensor operations: bias_act, upfirdn2d, conv2d_resample, grid_sample."""
