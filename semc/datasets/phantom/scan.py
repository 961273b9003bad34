"""Sector geometry: where each beam's samples lie in the body, and from beams to image pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from semc.datasets.phantom.style import CentreStyle

_CURVED_RADIUS = 6.0
_LINEAR_HALF_WIDTH = 0.42
_SHOWN_WIDTH = 0.75
"""Share of the sector's width that fits the image; the lower corners are cropped, as on a zoomed display."""
_DEPTHS_PER_PIXEL, _BEAMS_PER_PIXEL = 3, 1


@dataclass(frozen=True)
class ScanGeometry:
    """The polar grid of a style and the bilinear map from it to the image.

    Attributes:
        x_DB, z_DB: Place of each sample in the body, image depths times zoom; z = 0 at the probe's face.
        taps_4P: Flat indices of the four samples around each of the P pixels inside the sector.
        weights_4P: Their bilinear weights.
        pixels_P: Flat indices of those pixels.
        shape: Image height and width.
    """

    x_DB: NDArray[np.float32]
    z_DB: NDArray[np.float32]
    taps_4P: NDArray[np.intp]
    weights_4P: NDArray[np.float32]
    pixels_P: NDArray[np.intp]
    shape: tuple[int, int]

    def convert(self, polar_DB: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the image [H, W] of a polar field; 0 outside the sector."""
        image = np.zeros(self.shape[0] * self.shape[1], dtype=np.float32)
        image[self.pixels_P] = (polar_DB.ravel()[self.taps_4P] * self.weights_4P).sum(axis=0)
        return image.reshape(self.shape)


@lru_cache(maxsize=16)
def scan_geometry(style: CentreStyle, image_size: int) -> ScanGeometry:
    """Return the geometry of a style for images `image_size` pixels high."""
    num_depths, num_beams = _DEPTHS_PER_PIXEL * image_size, _BEAMS_PER_PIXEL * image_size
    height, width = image_size, round(image_size * style.aspect)
    depth_D = np.linspace(0, 1, num_depths)[:, None]
    beam_B = np.linspace(-1, 1, num_beams)[None, :]
    rows = (np.arange(height) + 0.5)[:, None]
    columns = (np.arange(width) + 0.5)[None, :] - width / 2
    if style.geometry == "linear":
        x_DB = beam_B * _LINEAR_HALF_WIDTH + 0 * depth_D
        z_DB = depth_D + 0 * beam_B
        scale = 1.0 / height
        depth_HW = rows * scale + 0 * columns
        beam_HW = columns * scale / _LINEAR_HALF_WIDTH + 0 * rows
    else:
        radius = style.probe_radius * (_CURVED_RADIUS if style.geometry == "curved" else 1.0)
        half = style.half_angle / (1.0 + radius) if style.geometry == "curved" else style.half_angle
        x_DB = (radius + depth_D) * np.sin(half * beam_B)
        z_DB = (radius + depth_D) * np.cos(half * beam_B) - radius
        top = radius * np.cos(half)
        scale = max((radius + 1 - top) / height, _SHOWN_WIDTH * 2 * (radius + 1) * np.sin(half) / width)
        across = columns * scale
        down = top + rows * scale
        depth_HW = np.hypot(across, down) - radius
        beam_HW = np.arctan2(across, down) / half
    taps_4P, weights_4P, pixels_P = _bilinear(depth_HW, beam_HW, num_depths, num_beams)
    return ScanGeometry(
        x_DB=(x_DB * style.zoom).astype(np.float32),
        z_DB=(z_DB * style.zoom).astype(np.float32),
        taps_4P=taps_4P,
        weights_4P=weights_4P,
        pixels_P=pixels_P,
        shape=(height, width),
    )


def _bilinear(
    depth_HW: NDArray[np.float64], beam_HW: NDArray[np.float64], num_depths: int, num_beams: int
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.intp]]:
    """Return taps, weights and pixels for depths in [0, 1] and beams in [-1, 1]."""
    row = depth_HW.ravel() * (num_depths - 1)
    column = (beam_HW.ravel() + 1) / 2 * (num_beams - 1)
    pixels = np.flatnonzero((row >= 0) & (row <= num_depths - 1) & (column >= 0) & (column <= num_beams - 1))
    row, column = row[pixels], column[pixels]
    row0 = np.minimum(row.astype(np.intp), num_depths - 2)
    column0 = np.minimum(column.astype(np.intp), num_beams - 2)
    down, across = row - row0, column - column0
    first = row0 * num_beams + column0
    taps = np.stack([first, first + 1, first + num_beams, first + num_beams + 1])
    weights = np.stack(
        [(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across]
    ).astype(np.float32)
    return taps, weights, pixels
