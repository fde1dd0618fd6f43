# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""What an augmentation pipe does: the strength and magnitude of each transform, and the named pipes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

NUM_BANDS = 4  # frequency bands of the image filter, lowest first

_BLIT = {"xflip": 1.0, "rotate90": 1.0, "xint": 1.0}
_GEOM = {"scale": 1.0, "rotate": 1.0, "aniso": 1.0, "xfrac": 1.0}
_COLOR = {"brightness": 1.0, "contrast": 1.0, "lumaflip": 1.0, "hue": 1.0, "saturation": 1.0}
_FILTER = {"imgfilter": 1.0}
_NOISE = {"noise": 1.0}
_CUTOUT = {"cutout": 1.0}


@dataclass(frozen=True)
class AugmentConfig:
    """Strengths and magnitudes of the transforms; JSON by way of `dataclasses.asdict`.

    A strength multiplies p: an image gets the transform with probability min(strength * p, 1). 0 leaves it
    out.

    Raises:
        ValueError: a strength or magnitude is negative, or `imgfilter_bands` has not four entries.

    Source: Karras et al. 2020, arXiv:2006.06676, Appendix B.
    """

    # Pixel blitting.
    xflip: float = 0.0
    rotate90: float = 0.0
    xint: float = 0.0
    xint_max: float = 0.125  # integer translation, at most this part of the image's size

    # General geometry.
    scale: float = 0.0
    rotate: float = 0.0
    aniso: float = 0.0
    xfrac: float = 0.0
    scale_std: float = 0.2  # of log2 of the isotropic scale
    rotate_max: float = 1.0  # in units of 180 degrees
    aniso_std: float = 0.2  # of log2 of the anisotropic scale
    xfrac_std: float = 0.125  # fractional translation, relative to the image's size

    # Colour.
    brightness: float = 0.0
    contrast: float = 0.0
    lumaflip: float = 0.0
    hue: float = 0.0
    saturation: float = 0.0
    brightness_std: float = 0.2
    contrast_std: float = 0.5  # of log2 of the contrast
    hue_max: float = 1.0  # in units of 180 degrees
    saturation_std: float = 1.0  # of log2 of the saturation

    # Image-space filtering.
    imgfilter: float = 0.0
    imgfilter_bands: tuple[float, ...] = (1.0,) * NUM_BANDS  # strength of each band, relative to imgfilter
    imgfilter_std: float = 1.0  # of log2 of a band's gain

    # Image-space corruption.
    noise: float = 0.0
    cutout: float = 0.0
    noise_std: float = 0.1
    cutout_size: float = 0.5  # side of the cut square, relative to the image's size

    def __post_init__(self) -> None:
        object.__setattr__(self, "imgfilter_bands", tuple(self.imgfilter_bands))  # JSON gives a list
        if len(self.imgfilter_bands) != NUM_BANDS:
            raise ValueError(f"imgfilter_bands must have {NUM_BANDS} entries, got {self.imgfilter_bands}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not all(v >= 0 for v in (value if isinstance(value, tuple) else (value,))):
                raise ValueError(f"{field.name} must not be negative, got {value}")


PIPES: dict[str, AugmentConfig] = {
    "blit": AugmentConfig(**_BLIT),
    "geom": AugmentConfig(**_GEOM),
    "color": AugmentConfig(**_COLOR),
    "filter": AugmentConfig(**_FILTER),
    "noise": AugmentConfig(**_NOISE),
    "cutout": AugmentConfig(**_CUTOUT),
    "bg": AugmentConfig(**_BLIT, **_GEOM),
    "bgc": AugmentConfig(**_BLIT, **_GEOM, **_COLOR),
    "bgcf": AugmentConfig(**_BLIT, **_GEOM, **_COLOR, **_FILTER),
    "bgcfn": AugmentConfig(**_BLIT, **_GEOM, **_COLOR, **_FILTER, **_NOISE),
    "bgcfnc": AugmentConfig(**_BLIT, **_GEOM, **_COLOR, **_FILTER, **_NOISE, **_CUTOUT),
}
