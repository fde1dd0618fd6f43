# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The checks of `ggdr doctor`, each a function that returns what it found, and the problems in it."""
