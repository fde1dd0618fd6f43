# SPDX-FileCopyrightText: the GGDR authors of this repository
# SPDX-License-Identifier: Apache-2.0
"""Outlines and textures as functions of the plane, for many images at once: what `shapes` draws with.

Outlines are signed distances to a shape of radius about 1 around the origin: negative inside. Textures run from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Outline = Callable[[np.ndarray, np.ndarray], np.ndarray]  # x, y [n, H, W] float32 -> the same


def disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A circle of radius 0.95."""
    return np.hypot(x, y) - np.float32(0.95)


def ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Between circles of radii 0.45 and 1.05."""
    return np.abs(np.hypot(x, y) - np.float32(0.75)) - np.float32(0.3)


def square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """With sides of 1.7."""
    return _box(x, y, 0.85, 0.85)


def triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of three equal sides, with corners 1.2 from the middle."""
    half = np.float32(np.sqrt(3) / 2)
    return np.maximum(y, half * np.abs(x) - y / 2) - np.float32(0.6)


def cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of two bars, 2.2 long and 0.7 wide."""
    return np.minimum(_box(x, y, 1.1, 0.35), _box(x, y, 0.35, 1.1))


def star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of five points, which reach from 0.5 to 1.2."""
    part = np.float32(np.pi / 5)
    angle = np.abs((np.arctan2(x, -y) + part) % (2 * part) - part)  # from the nearest point
    radius = np.hypot(x, y)
    inner = np.array([0.5 * np.cos(part), 0.5 * np.sin(part)], np.float32)
    edge = inner - np.array([1.2, 0], np.float32)
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    return normal[0] * (radius * np.cos(angle) - np.float32(1.2)) + normal[1] * radius * np.sin(angle)


def bar(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """2.8 long and 0.6 wide."""
    return _box(x, y, 1.4, 0.3)


def _box(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    """A rectangle of these half sides."""
    x, y = np.abs(x) - np.float32(width), np.abs(y) - np.float32(height)
    return np.hypot(np.maximum(x, 0), np.maximum(y, 0)) + np.minimum(np.maximum(x, y), 0)


def plain(u: np.ndarray, v: np.ndarray, pixel: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """No texture."""
    return np.zeros_like(u)


def fade(u: np.ndarray, v: np.ndarray, pixel: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """From one side to the other, within a period."""
    return np.clip(u + np.float32(0.5), 0, 1)


def stripes(u: np.ndarray, v: np.ndarray, pixel: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """One a period."""
    return _steps(_sin(u + phase), pixel)


def checks(u: np.ndarray, v: np.ndarray, pixel: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """A chessboard, of four fields a period each way."""
    return _steps(_sin(u + phase) * _sin(v), pixel)


def dots(u: np.ndarray, v: np.ndarray, pixel: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """One a period each way."""
    return _steps((_sin(u + phase) + _sin(v)) / 2 - np.float32(0.25), pixel)


def clouds(u: np.ndarray, v: np.ndarray, pixel: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Soft, without a period to be seen: waves that bend one another."""
    slow = _sin(np.float32(0.23) * u + np.float32(0.39) * v + phase)
    bent = _sin(np.float32(0.44) * u - np.float32(0.27) * v + np.float32(0.15) * slow + phase * 3)
    fine = _sin(np.float32(0.61) * u + np.float32(0.35) * v + np.float32(0.2) * bent + phase * 5)
    return (slow + bent + np.float32(0.6) * slow * fine) / np.float32(5.2) + np.float32(0.5)


def _sin(turns: np.ndarray) -> np.ndarray:
    return np.sin(np.float32(2 * np.pi) * turns)


def _steps(wave: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """0 and 1 where a wave of -1 to 1 is below and above 0, with edges about two pixels wide.

    Args:
        pixel: [n, 1, 1], a pixel in periods.
    """
    return np.clip(wave / (np.float32(4 * np.pi) * pixel) + np.float32(0.5), 0, 1)
