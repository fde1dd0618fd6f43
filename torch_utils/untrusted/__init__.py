# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Readers of files that anyone may have written: nothing in them runs, and memory is bounded."""
