# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Images on disk: datasets, loader, converter. Most of it needs no torch."""
