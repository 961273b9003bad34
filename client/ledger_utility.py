"""What to expect of a model that was trained with patient-level privacy, from measured runs.

The measure that carries from one study to another is the noise that is left in the mean of all steps, beside the
largest mean that the patients can make: sigma sqrt(d) / (q n sqrt(T)) with d trained weights, n patients and T steps.
`semc-sim utility` prints it for every run, so the table can be made again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

UtilityClass = Literal["near", "usable", "weak", "none"]

MEASURED: Final = "five phantom hospitals that train heads together; real images differ"
"""What the table was measured on."""


@dataclass(frozen=True)
class Kept:
    """Share of the balanced accuracy without noise that is kept."""

    rare: float
    """Where classes are rare and the trunk fits less well: the cautious figure, which decides about warnings."""
    even: float
    """Where classes are even and the trunk fits."""


UTILITY: Final[tuple[tuple[float, Kept], ...]] = (
    (0.42, Kept(rare=0.99, even=0.99)),
    (0.62, Kept(rare=0.95, even=0.99)),
    (0.98, Kept(rare=0.93, even=0.98)),
    (1.43, Kept(rare=0.84, even=0.97)),
    (1.69, Kept(rare=0.79, even=0.97)),
    (3.06, Kept(rare=0.63, even=0.89)),
    (5.72, Kept(rare=0.45, even=0.70)),
)
"""Study noise and what was kept with it, rising (RESULTS.md, "What privacy costs in accuracy")."""

CLASSES: Final[tuple[tuple[UtilityClass, float, str], ...]] = (
    ("near", 0.90, "close to a model without privacy"),
    ("usable", 0.75, "usable, clearly below a model without privacy"),
    ("weak", 0.50, "weak: common classes only"),
    ("none", 0.0, "no useful model"),
)
"""Class, least share kept, in words; from the best to the worst."""


def study_noise(noise: float, weights: int, rate: float, patients: int, steps: int) -> float:
    """Return sigma sqrt(d) / (q n sqrt(T)).

    Args:
        noise: sigma.
        weights: d, trained weights.
        rate: q.
        patients: n, of one hospital.
        steps: T, of all rounds.
    """
    return noise * math.sqrt(weights / steps) / (rate * patients)


def expected(noise: float) -> Kept:
    """Return what to expect at a study noise: the table's next noisier row, nothing beyond its last."""
    return next((kept for measured, kept in UTILITY if noise <= measured), Kept(0.0, 0.0))


def utility_class(share: float) -> tuple[UtilityClass, str]:
    """Return the class of a share, and its words."""
    return next((name, words) for name, least, words in CLASSES if share >= least)
