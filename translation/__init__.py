# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Image translation, pix2pix, CycleGAN and ComboGAN: networks, losses, image pool, data, published weights."""
