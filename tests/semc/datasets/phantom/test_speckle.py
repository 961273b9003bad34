from __future__ import annotations

import numpy as np
import pytest

from semc.datasets.phantom import centre_style
from semc.datasets.phantom.speckle import log_compress, receive, speckle_envelope

STYLE = centre_style(0, 0, 0.0)
LOW, HIGH = 1.80, 2.02
"""Band about sqrt(pi / (4 - pi)) = 1.91, the mean over standard deviation of a Rayleigh distribution."""


def inner(field: np.ndarray) -> np.ndarray:
    return field[20:-20, 10:-10]


def ratio(field: np.ndarray) -> float:
    return float(inner(field).mean() / inner(field).std())


@pytest.mark.parametrize("seed", range(12))
def test_uniform_tissue_is_rayleigh_before_log_compression(seed: int) -> None:
    tissue = np.ones((384, 128), dtype=np.float32)
    envelope, noise = speckle_envelope(tissue, STYLE, np.random.default_rng(seed))
    assert LOW < ratio(envelope) < HIGH
    assert LOW < ratio(noise) < HIGH
    assert inner(envelope**2).mean() == pytest.approx(1.0, abs=0.12), "the filters keep the echo's power"


def test_control_log_compressed_tissue_is_not() -> None:
    tissue = np.ones((384, 128), dtype=np.float32)
    envelope, _ = speckle_envelope(tissue, STYLE, np.random.default_rng(0))
    assert not LOW < ratio(log_compress(envelope, STYLE)) < HIGH


def test_speckle_is_correlated_over_the_pulse_and_the_beam_and_widens_off_focus() -> None:
    tissue = np.ones((384, 128), dtype=np.float32)
    envelope, _ = speckle_envelope(tissue, STYLE, np.random.default_rng(0))
    power = envelope**2 - (envelope**2).mean()

    def correlation(rows: slice, shift: int) -> float:
        part = power[rows]
        return float((part[:, :-shift] * part[:, shift:]).mean() / part.var())

    along = float((power[:-2] * power[2:]).mean() / power.var())
    assert along > 0.6
    focus = slice(160, 224)
    assert correlation(focus, 2) < correlation(slice(320, 384), 2) - 0.1
    assert abs(correlation(focus, 30)) < 0.15


def test_absorbing_structures_cast_shadows_and_fluid_enhances() -> None:
    envelope = np.ones((300, 60), dtype=np.float32)
    absorption = np.zeros_like(envelope)
    absorption[100:110, 10:20] = 2.0
    absorption[100:110, 40:50] = -0.5
    heard = receive(envelope, 0 * envelope, absorption, STYLE)
    assert heard[200, 15] < 0.6 * heard[200, 30]
    assert heard[200, 45] > 1.1 * heard[200, 30]
    assert heard[50, 15] == heard[50, 30] == heard[50, 45]


def test_matched_compensation_is_flat_and_a_mismatch_is_not() -> None:
    envelope = np.ones((300, 60), dtype=np.float32)
    flat = receive(envelope, 0 * envelope, 0 * envelope, STYLE)
    np.testing.assert_allclose(flat, 1.0, rtol=1e-4)
    from dataclasses import replace

    dark = receive(envelope, 0 * envelope, 0 * envelope, replace(STYLE, attenuation=2.5))
    assert dark[-1, 30] < 0.6 * dark[0, 30]
    wedge = receive(envelope, 0 * envelope, 0 * envelope, replace(STYLE, gel=0.5))
    assert wedge[100, 30] < 0.6 * wedge[100, 0]
