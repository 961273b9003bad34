"""The audit's ruler: right on distributions whose epsilon is known, and never above it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from tests.attacks.lower_bound import clopper_pearson, epsilon_lower_bound, proved_epsilon
from tests.attacks.membership_scores import (
    area_under_curve,
    most_area_of,
    most_true_positives_of,
    true_positive_rate_at,
)


@pytest.mark.parametrize(("hits", "trials"), [(0, 50), (50, 50), (3, 40), (200, 1000)])
def test_the_interval_is_scipys(hits: int, trials: int) -> None:
    expected = binomtest(hits, trials).proportion_ci(0.95, method="exact")
    assert clopper_pearson(hits, trials) == pytest.approx((expected.low, expected.high))


def test_a_perfect_attacker_of_a_thousand_trials_proves_what_so_many_can() -> None:
    # No error in 500: the error rate may still be 0.735 %.
    rate = 1 - 0.025 ** (1 / 500)
    assert proved_epsilon(500, 500, 0, 500, 1e-5) == pytest.approx(math.log((1 - rate - 1e-5) / rate))


def test_a_coin_proves_nothing() -> None:
    assert proved_epsilon(251, 500, 250, 500, 1e-5) == 0


def test_the_bound_stays_below_randomised_response_and_comes_near_it() -> None:
    # Telling the truth with probability e^eps / (1 + e^eps) is exactly eps-private.
    rng, epsilon = np.random.default_rng(3), 2.0
    truth = math.exp(epsilon) / (1 + math.exp(epsilon))
    bounds = []
    for _ in range(40):
        told_in = (rng.random(2000) < truth).astype(np.float64)
        told_out = (rng.random(2000) > truth).astype(np.float64)
        bounds.append(epsilon_lower_bound(told_in, told_out, 0.0).epsilon)
    assert sum(bound > epsilon for bound in bounds) <= 5, "95 % confidence: 2 of 40 are expected at most"
    assert np.median(bounds) > 1.6


def test_a_gaussian_release_is_bounded_below_its_own_curve() -> None:
    # One release with sigma 1 at delta 1e-5: epsilon 4.38 (the exact curve).
    def delta_of(epsilon: float) -> float:
        return float(norm.cdf(0.5 - epsilon) - math.exp(epsilon) * norm.cdf(-0.5 - epsilon))

    assert delta_of(4.38) == pytest.approx(1e-5, rel=0.05)
    rng = np.random.default_rng(5)
    found = epsilon_lower_bound(rng.normal(1, 1, 1000), rng.normal(0, 1, 1000), 1e-5)
    assert 0.5 < found.epsilon < 4.38
    assert found.num_trials == 1500
    control = epsilon_lower_bound(rng.normal(8, 1, 1000), rng.normal(0, 1, 1000), 1e-5)
    assert control.epsilon > 4.38


def test_area_and_rate_of_separate_equal_and_reversed_scores() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.normal(size=4000), rng.normal(size=4000)
    assert area_under_curve(high + 100, low) == 1
    assert area_under_curve(low - 100, high) == 0
    assert area_under_curve(np.ones(5), np.ones(7)) == 0.5
    assert area_under_curve(high + 1, low) == pytest.approx(norm.cdf(1 / math.sqrt(2)), abs=0.02)
    assert true_positive_rate_at(0.01, high, low) == pytest.approx(0.01, abs=0.008)
    assert true_positive_rate_at(0.01, high + 100, low) == 1
    assert true_positive_rate_at(0.01, np.ones(50), np.ones(300)) == 0, "ties are no hits"


def test_the_analytic_bounds_are_those_of_the_trade_off_curve() -> None:
    assert most_area_of(0.0, 0.0) == pytest.approx(0.5, abs=1e-4)
    assert most_true_positives_of(0.0, 0.0, 0.01) == pytest.approx(0.01)
    # Pure epsilon: the curve is two lines that meet at (1 / (1 + e^eps)) from both corners.
    corner = 1 / (1 + math.exp(2.0))
    assert most_area_of(2.0, 0.0) == pytest.approx(1 - corner, abs=1e-3)
    assert most_true_positives_of(4.0, 1e-5, 0.01) == pytest.approx(math.exp(4) * 0.01 + 1e-5)
