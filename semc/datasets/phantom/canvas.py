"""Painting tissue on the polar grid: echo strength and absorption of every depth sample and beam."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Field_DB: TypeAlias = NDArray[np.float32]
"""One value per depth sample (D) and beam (B)."""


class Canvas:
    """Echo strength (dB) and absorption of one frame, painted structure by structure.

    Coordinates: x across (0 = middle), z down (0 = skin), in image depths, already moved by the frame's probe
    position, so an anatomy paints itself at one place in all its frames.

    Args:
        x_DB: Lateral position of every sample.
        z_DB: Depth of every sample.
    """

    def __init__(self, x_DB: Field_DB, z_DB: Field_DB) -> None:
        self.x_DB, self.z_DB = x_DB, z_DB
        self.echo_DB: Field_DB = np.zeros_like(x_DB)
        """Echo strength, dB relative to soft tissue."""
        self.absorption_DB: Field_DB = np.zeros_like(x_DB)
        """Extra loss relative to soft tissue: bone > 0, fluid < 0."""

    def radius(self, x: float, z: float, half_width: float, half_height: float, tilt: float) -> Field_DB:
        """Return the elliptic radius (1 on the outline) about (x, z), the ellipse turned by `tilt` rad."""
        cosine, sine = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
        dx, dz = self.x_DB - np.float32(x), self.z_DB - np.float32(z)
        along = (dx * cosine + dz * sine) / np.float32(half_width)
        across = (dz * cosine - dx * sine) / np.float32(half_height)
        return np.sqrt(along * along + across * across)

    def fill(self, radius_DB: Field_DB, level: float, *, edge: float = 0.12, absorption: float = 0.0) -> None:
        """Paint the inside of an outline at `level` dB; `edge` = width of the border in radii."""
        self._blend(np.clip((1.0 - radius_DB) / np.float32(edge) + 0.5, 0.0, 1.0), level, absorption)

    def ring(
        self,
        radius_DB: Field_DB,
        level: float,
        *,
        width: float = 0.06,
        absorption: float = 0.0,
        opening: tuple[float, float] | None = None,
    ) -> None:
        """Paint an outline `width` radii thick; `opening` = (position, half width) in x left unpainted."""
        offset = (radius_DB - 1.0) / np.float32(width)
        mask = np.exp(-offset * offset)
        if opening is not None:
            mask = mask * (np.abs(self.x_DB - np.float32(opening[0])) > opening[1])
        self._blend(mask, level, absorption)

    def bar(
        self,
        x: float,
        z: float,
        half_length: float,
        thickness: float,
        tilt: float,
        level: float,
        absorption: float = 0.0,
    ) -> None:
        """Paint a straight line of Gaussian `thickness` with soft ends."""
        cosine, sine = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
        dx, dz = self.x_DB - np.float32(x), self.z_DB - np.float32(z)
        along = np.abs(dx * cosine + dz * sine)
        across = (dz * cosine - dx * sine) / np.float32(thickness)
        ends = np.clip((np.float32(half_length) - along) / np.float32(0.02) + 0.5, 0.0, 1.0)
        self._blend(np.exp(-across * across) * ends, level, absorption)

    def band(self, z: float, thickness: float, level: float) -> None:
        """Paint a horizontal layer."""
        across = (self.z_DB - np.float32(z)) / np.float32(thickness)
        self._blend(np.exp(-across * across), level, 0.0)

    def texture(self, waves: NDArray[np.float64], depth: float) -> None:
        """Modulate the echo by `depth` dB with slow plane waves [W, 3] = (kx, kz, phase)."""
        for kx, kz, phase in waves.astype(np.float32):
            self.echo_DB += np.float32(depth) * np.sin(kx * self.x_DB + kz * self.z_DB + phase)

    def _blend(self, mask_DB: Field_DB, level: float, absorption: float) -> None:
        self.echo_DB += mask_DB * (np.float32(level) - self.echo_DB)
        if absorption:
            self.absorption_DB += mask_DB * (np.float32(absorption) - self.absorption_DB)
