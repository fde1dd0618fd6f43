# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""The steps of `ggdr accept`, and what runs them one after the other in processes of their own."""
