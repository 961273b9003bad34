from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from semc.datasets.phantom import centre_style
from semc.datasets.phantom.style import _RANGES


def test_no_severity_is_one_scanner_for_all() -> None:
    assert len({centre_style(seed, index, 0.0) for seed in (0, 1) for index in range(4)}) == 1
    common = asdict(centre_style(0, 0, 0.0))
    assert all(common[key] == value for key, (value, _, _) in _RANGES.items())


@pytest.mark.parametrize("seed", range(5))
def test_severity_moves_every_key_in_proportion(seed: int) -> None:
    none, half, full = (asdict(centre_style(seed, 1, severity)) for severity in (0.0, 0.5, 1.0))
    for key, (_, low, high) in _RANGES.items():
        assert low - 1e-9 <= full[key] <= high + 1e-9
        assert half[key] == pytest.approx((none[key] + full[key]) / 2)


def test_categories_switch_at_fixed_severities() -> None:
    assert {centre_style(0, index, 0.29).overlay for index in range(3)} == {"none"}
    assert {centre_style(0, index, 0.3).overlay for index in range(3)} == {"none", "text", "logo"}
    assert {centre_style(0, index, 0.74).geometry for index in range(3)} == {"fan"}
    assert {centre_style(0, index, 0.75).geometry for index in range(3)} == {"fan", "curved", "linear"}
    assert {centre_style(0, index, 0.59).aspect for index in range(3)} == {1.0}
    assert any(centre_style(0, index, 0.6).jpeg_quality is not None for index in range(8))


def test_three_centres_never_share_a_value_by_chance() -> None:
    """The additive recurrence keeps any two of three centres at least 0.23 of each key's range apart."""
    for seed in range(20):
        styles = [asdict(centre_style(seed, index, 1.0)) for index in range(3)]
        for key, (_, low, high) in _RANGES.items():
            values = np.array([style[key] for style in styles]) if high > low else np.arange(3)
            gaps = np.abs(values[:, None] - values)[np.triu_indices(3, 1)] / (high - low)
            assert gaps.min() > 0.23


def test_the_reserved_centre_has_a_style_of_its_own() -> None:
    assert centre_style(0, 3, 0.5, reserved=True) != centre_style(0, 3, 0.5)
