# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What every host shares: operations, data, checkpoints, the training loop and its log."""
