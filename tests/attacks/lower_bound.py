"""From an attacker's hits and misses to a lower bound on epsilon that holds with 95 % confidence.

Whoever is (epsilon, delta)-private leaves every test between "patient in" and "patient out" with, as rates,
hits <= e^epsilon false alarms + delta, and the same of the two complements (Kairouz, Oh and Viswanath 2015). So rates
that were counted, moved to the unfavourable end of their Clopper-Pearson intervals, bound epsilon from below
(Jagielski, Ullman and Oprea 2020). A bound above the claim proves the claim false; a bound below it proves nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

CONFIDENCE = 0.95


@dataclass(frozen=True)
class LowerBound:
    """What a threshold test on fresh trials proves."""

    epsilon: float
    """Lower bound, 0 where nothing is proved."""
    true_positive_rate: float
    false_positive_rate: float
    num_trials: int
    """Trials behind the bound, both worlds together; those that chose the threshold are not among them."""


def epsilon_lower_bound(
    scores_in: NDArray[np.float64], scores_out: NDArray[np.float64], delta: float, *, choosing: float = 0.25
) -> LowerBound:
    """Choose a threshold on the first trials of each world and count on the others.

    Args:
        scores_in: One score per independent trial with the canary; higher = the attacker says "in".
        scores_out: The same without it.
        delta: Of the claim.
        choosing: Share of the trials that choose the threshold.
    """
    cut_in, cut_out = round(len(scores_in) * choosing), round(len(scores_out) * choosing)
    threshold = _best_threshold(scores_in[:cut_in], scores_out[:cut_out], delta)
    test_in, test_out = scores_in[cut_in:], scores_out[cut_out:]
    hits, false_alarms = int((test_in > threshold).sum()), int((test_out > threshold).sum())
    return LowerBound(
        epsilon=proved_epsilon(hits, len(test_in), false_alarms, len(test_out), delta),
        true_positive_rate=hits / len(test_in),
        false_positive_rate=false_alarms / len(test_out),
        num_trials=len(test_in) + len(test_out),
    )


def proved_epsilon(hits: int, num_in: int, false_alarms: int, num_out: int, delta: float) -> float:
    """Return the epsilon that these counts exclude everything below of, with 95 % confidence; at least 0.

    Both one-sided bounds hold together with 95 %, so the better of the two inequalities may be taken.
    """
    tpr_low = clopper_pearson(hits, num_in)[0]
    fpr_high = clopper_pearson(false_alarms, num_out)[1]
    inequalities = ((tpr_low, fpr_high), (1 - fpr_high, 1 - tpr_low))
    return max(0.0, *(math.log((high - delta) / low) if high > delta else 0.0 for high, low in inequalities))


def clopper_pearson(hits: int, trials: int) -> tuple[float, float]:
    """Return the exact two-sided 95 % interval of a proportion."""
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.ppf(1 - tail, hits + 1, trials - hits))
    return low, high


def _best_threshold(scores_in: NDArray[np.float64], scores_out: NDArray[np.float64], delta: float) -> float:
    """Return the threshold with the highest bound on the trials it may look at."""
    ordered = np.unique(np.concatenate([scores_in, scores_out]))
    # Halfway between neighbours: where the worlds are apart, a threshold on a trial would lose that trial's like.
    candidates = (ordered[1:] + ordered[:-1]) / 2
    in_sorted, out_sorted = np.sort(scores_in), np.sort(scores_out)
    hits = len(in_sorted) - np.searchsorted(in_sorted, candidates, side="right")
    false_alarms = len(out_sorted) - np.searchsorted(out_sorted, candidates, side="right")
    bounds = [
        proved_epsilon(int(h), len(in_sorted), int(f), len(out_sorted), delta)
        for h, f in zip(hits, false_alarms, strict=True)
    ]
    return float(candidates[_middle_of_best(np.array(bounds))]) if bounds else float(ordered[0])


def _middle_of_best(bounds: NDArray[np.float64]) -> int:
    """Return the middle of the places that share the highest bound."""
    best = np.flatnonzero(bounds >= bounds.max() - 1e-12)
    return int(best[len(best) // 2])
