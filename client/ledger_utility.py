"""What to expect of a model that was trained with patient-level privacy, from one table of measured runs."""

from __future__ import annotations

from typing import Final, Literal

UtilityClass = Literal["near", "usable", "weak", "none"]

MEASURED: Final = (
    "a linear head on synthetic features, 7 unequal classes, 5 sites, 8 frames a patient, 200 steps, q 0.1; epsilon at "
    "delta 1e-5"
)
"""What the table was measured on; real images differ."""

UTILITY: Final[dict[int, dict[float, float]]] = {
    100: {11.0: 0.56, 5.8: 0.46, 3.0: 0.39, 1.5: 0.29},
    400: {11.0: 0.90, 5.8: 0.81, 3.0: 0.69, 1.5: 0.52},
    1500: {11.0: 0.96, 5.8: 0.95, 3.0: 0.91, 1.5: 0.80},
}
"""Patients of a site, epsilon: share of the balanced accuracy without privacy that is kept."""

_SLACK: Final = 1.02
"""A plan for epsilon 4 comes out just below it, because its noise is rounded up."""

CLASSES: Final[tuple[tuple[UtilityClass, float, str], ...]] = (
    ("near", 0.90, "close to a model without privacy"),
    ("usable", 0.75, "usable, clearly below a model without privacy"),
    ("weak", 0.50, "weak: common classes only"),
    ("none", 0.0, "no useful model"),
)
"""Class, least share kept, in words; from the best to the worst."""


def expected_share(patients: int, epsilon: float) -> float:
    """Return the share of balanced accuracy to expect: the table's next smaller site and epsilon.

    Below the table's smallest site or epsilon nothing was measured that was useful: 0.
    """
    rows = [size for size in UTILITY if size <= patients]
    if not rows:
        return 0.0
    row = UTILITY[max(rows)]
    columns = [column for column in row if column <= epsilon * _SLACK]
    return row[max(columns)] if columns else 0.0


def utility_class(share: float) -> tuple[UtilityClass, str]:
    """Return the class of a share, and its words."""
    return next((name, words) for name, least, words in CLASSES if share >= least)
