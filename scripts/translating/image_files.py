# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Pixels of anyone's images for a translator, and its results as pixels."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageCms
from torch import Tensor

from ggdr.torch_utils.data.convert import to_channels
from ggdr.torch_utils.data.image_files import FORMATS, UnreadableImage, load_image
from ggdr.torch_utils.data.label_maps import class_colors
from ggdr.torch_utils.pictures.images import to_u8
from ggdr.torch_utils.pictures.sheets import as_rgb
from ggdr.torch_utils.untrusted.text import printable
from ggdr.translation.label_maps import to_input
from ggdr.translation.tiles import translate_in_tiles
from ggdr.translation.translator import Translator

FRAME_MS = 100  # that a frame of an animation stays if it does not say; what browsers take
TRANSPARENT = ("RGBA", "LA", "PA")


@dataclass(frozen=True)
class Translation:
    """How images are translated.

    Attributes:
        seed:       of the dropout, the same for each image, tile and frame.
        tile:       side of tiles in pixels, into which larger images are cut; None: images are translated whole.
        overlap:    of tiles, in pixels.
        batch_size: images or tiles that go through the network together.
    """

    translator: Translator
    seed: int = 0
    tile: int | None = None
    overlap: int = 0
    batch_size: int = 1

    def is_whole(self, size: tuple[int, int]) -> bool:
        """Whether an image of this size goes through the network in one piece."""
        return self.tile is None or max(size) <= self.tile

    def read(self, img: Image.Image, source: str, target: str, where: str) -> np.ndarray:
        """What the networks are shown of an image: uint8 [H, W, C], transparent pixels over white.

        Of a label map, where they take such, [H, W, 1] with the classes' numbers.

        Raises:
            DataError: the image has pixels whose range nobody can know; or it should be a label map, and is none.
        """
        if self.translator.labels is not None:
            return self.translator.labels.read(img, where)[:, :, None]
        channels = self.translator.channels(source, target)[0]
        pixels = np.asarray(to_channels(to_srgb(img), channels, where))
        return pixels.reshape(*pixels.shape[:2], channels)

    def shown(self, image: np.ndarray) -> np.ndarray:
        """What `read` gave as people look at it, label maps in colours: uint8 [H, W, 1 or 3]."""
        labels = self.translator.labels
        return image if labels is None else class_colors(labels)[np.minimum(image[:, :, 0], labels.num)]

    def finished(self, img: Image.Image, pixels: np.ndarray) -> np.ndarray:
        """A translation with the transparency of its image, which label maps have none of: uint8 [H, W, 1, 3 or 4]."""
        return pixels if self.translator.labels is not None else with_alpha_of(img, pixels)

    def __call__(
        self,
        images: Sequence[np.ndarray],
        source: str,
        target: str,
        on_tiles: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[np.ndarray]:
        """Translates images [H, W, C] uint8, as `read` gives, all of one size; the same size, 1 or 3 channels."""
        height, width = images[0].shape[:2]
        if self.is_whole((width, height)):
            out = to_u8(self._run(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), source, target))
            return list(out.permute(0, 2, 3, 1).numpy())
        return [
            translate_in_tiles(
                lambda tiles: self._run(tiles, source, target),
                image,
                self.translator.channels(source, target)[1],
                tile=self.tile,
                overlap=self.overlap,
                multiple=self.translator.multiple,
                batch_size=self.batch_size,
                on_tiles=on_tiles,
            )
            for image in images
        ]

    def _run(self, images_u8: Tensor, source: str, target: str) -> Tensor:
        seeds = [self.seed] * len(images_u8)
        return self.translator(
            to_input(images_u8, self.translator.labels), source, target, seed=seeds, batch_size=self.batch_size
        )


def to_srgb(img: Image.Image) -> Image.Image:
    """An image in sRGB, which what networks are trained on is in as a rule, if its colour profile says otherwise.

    The image itself if it has no profile, or a damaged one, without which most programs show it.
    """
    profile = img.info.get("icc_profile")
    if not profile or img.mode not in ("RGB", "RGBA", "L", "LA", "P", "PA", "CMYK"):
        return img
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space == "GRAY":
            # A grey value in sRGB is the same as in each of its channels.
            return img
        colours = img.convert("RGBA" if has_alpha(img) else "RGB") if img.mode != "CMYK" else img
        alpha = colours.getchannel("A") if colours.mode == "RGBA" else None
        colours = colours.convert("RGB") if alpha else colours
        out = ImageCms.profileToProfile(colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return img
    if alpha:
        out.putalpha(alpha)
    return out


def has_alpha(img: Image.Image) -> bool:
    """Whether an image may have transparent pixels."""
    return img.mode in TRANSPARENT or "transparency" in img.info


def with_alpha_of(img: Image.Image, pixels: np.ndarray) -> np.ndarray:
    """[H, W, 1 or 3] with the transparency of an image of this size; as it is where the image has none."""
    if not has_alpha(img):
        return pixels
    return np.concatenate([as_rgb(pixels), np.asarray(img.convert("RGBA"))[:, :, 3:]], axis=2)


def frames_of(data: bytes, where: str) -> Iterator[Image.Image]:
    """The frames of an animated GIF, WebP or PNG; `info` of each may have its "duration" in milliseconds.

    Raises:
        UnreadableImage: one cannot be decoded.
    """
    load_image(data, where)  # also sees to it that it is not larger than images of so many bytes are
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as img:
            for i in range(getattr(img, "n_frames", 1)):
                img.seek(i)
                img.load()
                yield img.copy()
    except Exception as error:  # Pillow's decoders raise nearly any type on damaged input
        raise UnreadableImage(f"{where}: a frame cannot be decoded ({printable(error)})") from error


def durations_of(data: bytes, where: str) -> list[int]:
    """How long each frame stays, in milliseconds; raises UnreadableImage as `frames_of`."""
    return [round(frame.info.get("duration", 0)) or FRAME_MS for frame in frames_of(data, where)]
