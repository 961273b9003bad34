"""Scanner styles: what makes two centres' images of one anatomy differ.

A centre's style is common + s·(own − common) for every continuous key and switches categorical keys (sector
geometry, overlay, export) at fixed severities s. Own values of successive centres are spread over each key's
range by an additive recurrence with a seeded start and direction, so that a few centres are always well
apart instead of sometimes alike by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from semc.seed import derive_seed

Geometry = Literal["fan", "curved", "linear"]
Overlay = Literal["none", "text", "logo"]

_RANGES: dict[str, tuple[float, float, float]] = {
    "frequency": (0.12, 0.08, 0.20),
    "axial": (3.0, 2.0, 5.0),
    "lateral": (1.2, 0.8, 2.5),
    "focus": (0.5, 0.3, 0.8),
    "attenuation": (1.2, 0.8, 2.5),
    "tgc": (1.2, 1.2, 1.6),
    "dynamic_range": (60.0, 45.0, 75.0),
    "gain": (0.0, -4.0, 6.0),
    "gamma": (1.0, 0.8, 1.2),
    "half_angle": (0.75, 0.55, 0.95),
    "probe_radius": (0.05, 0.02, 0.12),
    "shadow": (0.03, 0.01, 0.05),
    "gel": (0.0, 0.0, 0.5),
    "gel_position": (0.0, -0.8, 0.8),
    "zoom": (1.0, 0.85, 1.2),
}
"""Key: (common value, lowest own value, highest own value)."""
_GOLDEN = 0.6180339887498949
_OVERLAY_AT, _EXPORT_AT, _GEOMETRY_AT = 0.3, 0.6, 0.75
"""Severities from which a centre's own overlay, file export and sector geometry replace the common ones."""


@dataclass(frozen=True)
class CentreStyle:
    """One scanner with its operator's settings."""

    frequency: float
    """Centre frequency f, cycles per depth sample; scales attenuation."""
    axial: float
    """Pulse length, depth samples of a 384 x 128 grid (standard deviation of the Gaussian envelope)."""
    lateral: float
    """Beam width at the focus, beams of a 384 x 128 grid (standard deviation)."""
    focus: float
    """Focal depth, share of the image depth."""
    attenuation: float
    """Attenuation per cycle/sample of frequency."""
    tgc: float
    """Attenuation that the time gain compensation assumes; a mismatch darkens or brightens with depth."""
    dynamic_range: float
    """Log compression, dB."""
    gain: float
    """Overall gain, dB."""
    gamma: float
    """Exponent of the grey map."""
    half_angle: float
    """Half opening of the sector, rad."""
    probe_radius: float
    """Radius of the probe's face, image depths."""
    shadow: float
    """Loss behind absorbing structures, nepers per sample at 384 samples."""
    gel: float
    """Depth of the poor-contact wedge, 0-1."""
    gel_position: float
    """Centre of the wedge, share of the half angle."""
    zoom: float
    """Depth setting: tissue per image depth."""
    geometry: Geometry
    """Shape of the field of view."""
    overlay: Overlay
    """Burnt-in graphics."""
    jpeg_quality: int | None
    """JPEG quality of exported files; None = PNG."""
    aspect: float
    """Width over height of exported images."""


def centre_style(seed: int, index: int, severity: float, *, reserved: bool = False) -> CentreStyle:
    """Return the style of one centre.

    Args:
        seed: The cohort's seed.
        index: The centre's number, from 0.
        severity: s in [0, 1].
        reserved: Draw from the stream of the reserved centre.
    """
    stream = derive_seed(seed, "reserved style") if reserved else derive_seed(seed, "style")
    rng = np.random.default_rng(stream)
    starts = rng.random(len(_RANGES))
    reflected = rng.random(len(_RANGES)) < 0.5
    values: dict[str, float] = {}
    for (key, (common, low, high)), start, flip in zip(_RANGES.items(), starts, reflected, strict=True):
        share = (start + index * _GOLDEN) % 1.0
        own = low + (high - low) * (1.0 - share if flip else share)
        values[key] = common + severity * (own - common)
    own_rng = np.random.default_rng(derive_seed(stream, "categories", index))
    quality, aspect = int(own_rng.integers(60, 91)), float(own_rng.uniform(1.0, 1.33))
    as_jpeg = own_rng.random() < 0.5
    geometries: tuple[Geometry, ...] = ("fan", "curved", "linear")
    overlays: tuple[Overlay, ...] = ("text", "logo", "none")
    turn = int(rng.integers(3)) + index
    return CentreStyle(
        **values,
        geometry=geometries[turn % 3] if severity >= _GEOMETRY_AT else "fan",
        overlay=overlays[turn % 3] if severity >= _OVERLAY_AT else "none",
        jpeg_quality=quality if severity >= _EXPORT_AT and as_jpeg else None,
        aspect=aspect if severity >= _EXPORT_AT else 1.0,
    )
