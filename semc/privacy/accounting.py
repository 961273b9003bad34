"""What Poisson-sampled, noised steps cost a patient: epsilon at a delta, composed over everything that left.

RDP decides (Mironov, Talwar and Zhang 2019, "Renyi differential privacy of the sampled Gaussian mechanism"): at every
order the costs of different mechanisms add exactly, and the result is an upper bound. PRV (Gopi, Lee and Wutschitz
2021) is tighter and only shown beside it. There is no other accountant: a ledger with an entry that names
one is refused when it is read (semc/privacy/ledger_events.py). GDP would be wrong: its central-limit value lies below
the true cost, 1.62 where PRV gives 2.48 (sigma 1, q 0.05, 40 steps, delta 1e-5).

Opacus does the analysis and is imported when the first number is asked for, because it brings torch with it.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from semc.exit_codes import ExitCode, SemcError

LARGEST_EPSILON: Final = 60.0
"""PRV is not computed above it: its grid grows with epsilon, and nobody would allow such a budget."""
LEAST_NOISE: Final = 0.3
MOST_NOISE: Final = 1000.0
"""Range of noise multipliers a study may have (semc/config/privacy.py)."""

ORDERS: Final = np.array(
    [1 + tenth / 10 for tenth in range(1, 100)]
    + list(range(11, 64))
    + [64, 72, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024],
    dtype=np.float64,
)
"""Renyi orders; the binomials of the sampled Gaussian overflow above 1029."""


@dataclass(frozen=True)
class Mechanism:
    """A number of noisy steps of one kind."""

    noise_multiplier: float
    """sigma: standard deviation of the noise in units of the clip norm."""
    sampling_rate: float
    """q: probability with which each patient enters a step, (0, 1]."""
    steps: int
    """Noisy steps, each with its own draw of patients."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier > 0):
            raise ValueError("noise_multiplier must be positive and finite")
        if not 0 < self.sampling_rate <= 1:
            raise ValueError("sampling_rate must be above 0 and at most 1")
        if self.steps < 1:
            raise ValueError("steps must be at least 1")


def default_delta(num_patients: int) -> float:
    """Return min(1e-5, n^-1.1): below one over the number of patients, whatever that is."""
    return float(min(1e-5, num_patients**-1.1))


def rdp_epsilon(mechanisms: Sequence[Mechanism], delta: float) -> float:
    """Return the upper bound that decides: epsilon of all mechanisms together.

    Args:
        mechanisms: Everything that left, in any order; none costs 0.
        delta: Probability with which the bound may fail, (0, 1).

    Returns:
        epsilon >= 0; infinite where no order gives a finite value.
    """
    total = np.zeros_like(ORDERS)
    for (noise, rate), steps in _grouped(mechanisms).items():
        total += steps * _rdp_of_step(noise, rate)
    if not total.any():
        return 0.0
    # Opacus' conversion (Balle et al. 2020, theorem 21); it warns where the best order is an end of the grid,
    # which makes the bound looser, never wrong
    from opacus.accountants.analysis.rdp import get_privacy_spent

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        epsilon, _ = get_privacy_spent(orders=ORDERS, rdp=total, delta=delta)
    return math.inf if math.isnan(epsilon) else max(0.0, float(epsilon))


def prv_epsilon(mechanisms: Sequence[Mechanism], delta: float) -> float | None:
    """Return the tighter value that is shown beside RDP: PRV's upper bound, within 0.01 of the true epsilon.

    Args:
        mechanisms: As in :func:`rdp_epsilon`.
        delta: As in :func:`rdp_epsilon`.

    Returns:
        epsilon, or None where it is too large to be worth computing.
    """
    bound = rdp_epsilon(mechanisms, delta)
    if bound == 0:
        return 0.0
    if bound > LARGEST_EPSILON:
        return None
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(noise, rate, steps) for (noise, rate), steps in _grouped(mechanisms).items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta))


def noise_for(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """Return the least noise multiplier with which the steps cost at most epsilon, rounded up to 3 decimals.

    Raises:
        SemcError: BUDGET_REFUSED where even the largest noise costs more.
    """

    def fits(thousandths: int) -> bool:
        return rdp_epsilon([Mechanism(thousandths / 1000, sampling_rate, steps)], delta) <= epsilon

    low, high = round(LEAST_NOISE * 1000), round(MOST_NOISE * 1000)
    if not fits(high):
        raise SemcError(
            ExitCode.BUDGET_REFUSED,
            f"No noise multiplier up to {MOST_NOISE:g} brings these steps to epsilon {epsilon:g}.",
            "plan fewer steps, a smaller patient fraction or a larger epsilon",
        )
    while low < high:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle + 1
    return low / 1000


def _grouped(mechanisms: Sequence[Mechanism]) -> Counter[tuple[float, float]]:
    """Return the steps by (noise multiplier, sampling rate): equal mechanisms are analysed once."""
    grouped: Counter[tuple[float, float]] = Counter()
    for mechanism in mechanisms:
        grouped[mechanism.noise_multiplier, mechanism.sampling_rate] += mechanism.steps
    return grouped


@lru_cache(maxsize=4096)
def _rdp_of_step(noise: float, rate: float) -> NDArray[np.float64]:
    """Return the cost of one step at every order; an order whose series fails is infinite, so never chosen."""
    from opacus.accountants.analysis.rdp import compute_rdp

    rdp = np.full_like(ORDERS, np.inf)
    for index, order in enumerate(ORDERS):
        try:
            value = float(compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=float(order)))
        except (ArithmeticError, ValueError):  # a series that does not converge in double precision
            continue
        if value >= 0:  # neither negative nor NaN
            rdp[index] = value
    # the true cost never falls with the order: a value below an earlier one is a rounding error
    finite = np.isfinite(rdp)
    rdp[finite] = np.maximum.accumulate(rdp[finite])
    rdp.setflags(write=False)
    return rdp
