"""Burnt-in graphics: depth ticks, grey bar, logo, calipers, glyphs, and the class marker of the leak test."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semc.datasets.phantom.style import CentreStyle

_WHITE, _DIM = 235, 150


def draw_overlay(image_HW: NDArray[np.uint8], style: CentreStyle, centre_seed: int, frame_seed: int) -> None:
    """Draw the style's graphics into `image_HW`, in place.

    Args:
        image_HW: The frame.
        style: Whose `overlay` to draw.
        centre_seed: Decides glyphs and places, the same in all of a centre's frames.
        frame_seed: Decides the calipers, inside the sector and in some frames only.
    """
    if style.overlay == "none":
        return
    height, width = image_HW.shape
    unit = max(1, height // 64)
    rng = np.random.default_rng(centre_seed)
    for row in range(4 * unit, height, max(4, height // 10)):
        image_HW[row : row + unit, width - 2 * unit :] = _DIM
    if style.overlay == "logo":
        bar = np.linspace(_WHITE, 0, height // 3).astype(np.uint8)
        image_HW[height // 3 : height // 3 + len(bar), : 2 * unit] = bar[:, None]
        image_HW[unit : 6 * unit, unit : 6 * unit] = _block(rng, 5, 5, unit)
    else:
        for line in range(2):
            top = unit + line * 5 * unit
            for glyph in range(int(rng.integers(2, 5))):
                left = unit + glyph * 4 * unit
                image_HW[top : top + 4 * unit, left : left + 3 * unit] |= _block(rng, 4, 3, unit)
    frame_rng = np.random.default_rng(frame_seed)
    if frame_rng.random() < 0.3:
        for _ in range(2):
            row = int(frame_rng.uniform(0.3, 0.75) * height)
            column = int(frame_rng.uniform(0.3, 0.7) * width)
            image_HW[row - unit : row + 2 * unit, column : column + unit] = _WHITE
            image_HW[row : row + unit, column - unit : column + 2 * unit] = _WHITE


def draw_class_marker(image_HW: NDArray[np.uint8], label: int, num_classes: int) -> None:
    """Burn a white square into the lower edge whose place tells `label`: the trap of a shortcut learner."""
    height, width = image_HW.shape
    unit = max(2, height // 32)
    left = round((label + 0.5) * width / num_classes) - unit // 2
    image_HW[height - 2 * unit : height - unit, left : left + unit] = _WHITE


def _block(rng: np.random.Generator, rows: int, columns: int, unit: int) -> NDArray[np.uint8]:
    """Return a random on/off glyph of rows x columns cells, each unit x unit pixels."""
    cells = np.where(rng.random((rows, columns)) < 0.55, _WHITE, 0).astype(np.uint8)
    return np.repeat(np.repeat(cells, unit, axis=0), unit, axis=1)
