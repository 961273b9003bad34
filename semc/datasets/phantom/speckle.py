"""Speckle and the receive chain on the polar grid: scatterers, pulse, beam, attenuation, log compression.

Scatterers are complex circular Gaussian, so the carrier exp(2πi f k) of the pulse only turns phases and drops
out of the magnitude: the axial filter is the pulse's Gaussian envelope exp(−k²/2ax²), and the frequency f
acts through attenuation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from semc.datasets.phantom.style import CentreStyle

_REFERENCE_DEPTHS = 384
"""Depth samples of the grid that a style's pulse length, beam width and shadow refer to."""
_NEPERS_PER_DEPTH = 6.0
_LATERAL_GROWTH = 2.5
_NOISE_FLOOR = 0.004
_FULL_SCALE_DB = 24.0
"""Echo strength shown white at 0 dB gain, relative to soft tissue."""
_WEDGE_WIDTH = 0.3


def speckle_envelope(
    reflectivity_DB: NDArray[np.float32], style: CentreStyle, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the Rayleigh-distributed echo envelope of a tissue, before attenuation.

    Args:
        reflectivity_DB: Amplitude √e per depth sample and beam.
        style: Pulse length and beam width.
        rng: Fresh for each frame.

    Returns:
        The envelope and a white noise magnitude of unit power (an unfiltered view of the same draws, half the
        depth away), both [D, B].
    """
    num_depths, num_beams = reflectivity_DB.shape
    white = rng.standard_normal((num_depths, num_beams, 2), dtype=np.float32).view(np.complex64)[..., 0]
    white *= np.float32(np.sqrt(0.5))
    finer = num_depths / _REFERENCE_DEPTHS
    axial = _unit_energy(_gaussian_response(num_depths, np.array([[style.axial * finer]])))
    field = fft.ifft(fft.fft(white * reflectivity_DB, axis=0) * axial.T, axis=0)
    depth = np.linspace(0, 1, num_depths)[:, None]
    widths = style.lateral * finer * (1.0 + _LATERAL_GROWTH * np.abs(depth - style.focus))
    lateral = _unit_energy(_gaussian_response(num_beams, widths))
    field = fft.ifft(fft.fft(field, axis=1) * lateral, axis=1)
    return np.abs(field), np.abs(np.roll(white, num_depths // 2, axis=0))


def receive(
    envelope_DB: NDArray[np.float32],
    noise_DB: NDArray[np.float32],
    absorption_DB: NDArray[np.float32],
    style: CentreStyle,
) -> NDArray[np.float32]:
    """Apply attenuation, shadows, probe contact, noise floor and time gain compensation."""
    num_depths, num_beams = envelope_DB.shape
    depth_D1 = np.linspace(0, 1, num_depths, dtype=np.float32)[:, None]
    loss = style.attenuation * style.frequency * _NEPERS_PER_DEPTH
    compensation = style.tgc * style.frequency * _NEPERS_PER_DEPTH
    step = np.float32(style.shadow * _REFERENCE_DEPTHS / num_depths)
    path_DB = np.cumsum(absorption_DB, axis=0, dtype=np.float32) * step
    beam_1B = np.linspace(-1, 1, num_beams, dtype=np.float32)[None, :]
    wedge_1B = 1.0 - style.gel * np.exp(-(((beam_1B - style.gel_position) / _WEDGE_WIDTH) ** 2))
    heard_DB = envelope_DB * np.exp(-np.float32(loss) * depth_D1 - path_DB) * wedge_1B.astype(np.float32)
    noisy_DB: NDArray[np.float32] = heard_DB + np.float32(_NOISE_FLOOR) * noise_DB
    amplified_DB: NDArray[np.float32] = noisy_DB * np.exp(np.float32(compensation) * depth_D1)
    return amplified_DB


def log_compress(heard_DB: NDArray[np.float32], style: CentreStyle) -> NDArray[np.float32]:
    """Return grey values in [0, 1]: dynamic range and gain in dB, then gamma."""
    level_DB = 20.0 * np.log10(np.maximum(heard_DB, np.float32(1e-6)))
    grey_DB = 1.0 + (level_DB + np.float32(style.gain - _FULL_SCALE_DB)) / np.float32(style.dynamic_range)
    clipped_DB: NDArray[np.float32] = np.clip(grey_DB, 0.0, 1.0)
    grey: NDArray[np.float32] = np.power(clipped_DB, np.float32(style.gamma))
    return grey


def _gaussian_response(length: int, sigma: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the transfer function [..., length] of Gaussians of standard deviation `sigma` samples."""
    frequency = fft.fftfreq(length)[None, :]
    response = np.exp(-2.0 * (np.pi * sigma * frequency) ** 2)
    return response.astype(np.float32)


def _unit_energy(response: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each row so that white noise keeps its power through the filter."""
    scaled: NDArray[np.float32] = response / np.sqrt(np.mean(response**2, axis=-1, keepdims=True))
    return scaled
