# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Latents: drawn, walked, moved along directions, and found for given images."""
