"""How well scores tell members from strangers, and how well (epsilon, delta) lets them at most."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

_CURVE_POINTS = 100_001


def area_under_curve(members: NDArray[np.float64], strangers: NDArray[np.float64]) -> float:
    """Return the chance that a member has the higher score, ties counted half: 0.5 is guessing."""
    ranks = rankdata(np.concatenate([members, strangers]))
    above = ranks[: len(members)].sum() - len(members) * (len(members) + 1) / 2
    return float(above / (len(members) * len(strangers)))


def true_positive_rate_at(
    false_positive_rate: float, members: NDArray[np.float64], strangers: NDArray[np.float64]
) -> float:
    """Return the share of members above the score that at most this share of strangers exceeds."""
    allowed = math.floor(false_positive_rate * len(strangers))
    threshold = np.sort(strangers)[len(strangers) - 1 - allowed]
    return float((members > threshold).mean())


def most_true_positives_of(epsilon: float, delta: float, false_positive_rate: float) -> float:
    """Return the largest true positive rate that (epsilon, delta) allows at a false positive rate.

    Both inequalities of Kairouz, Oh and Viswanath (2015): t <= e^eps f + delta and 1 - f <= e^eps (1 - t) + delta.
    """
    rising = math.exp(epsilon) * false_positive_rate + delta
    falling = 1 - math.exp(-epsilon) * (1 - delta - false_positive_rate)
    return min(1.0, rising, falling)


def most_area_of(epsilon: float, delta: float) -> float:
    """Return the largest area under the curve that (epsilon, delta) allows."""
    rates = np.linspace(0, 1, _CURVE_POINTS)
    curve = [most_true_positives_of(epsilon, delta, rate) for rate in rates]
    return float(np.trapezoid(curve, rates))
