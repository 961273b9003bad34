"""Small-cell rules: what may be told of the test patients, so that no rate of a few of them can be worked out.

Disclosure control, not differential privacy: no noise is added, and whoever knows most of the patients already
may learn about the rest. The unit is the patient: within a class every patient counts once, however many frames.

A class with fewer than `min_cell` patients, none included, is suppressed, and **nothing that leaves depends on its
images**: accuracy, balanced accuracy and macro-F1 are taken over the shown classes alone. The usual complementary
suppression (hiding a second class, with scores over all of them) is not enough for ratios: a sum of two hidden
recalls of 2.0 or 0.0 gives both away. Here every image of a suppressed class could be called anything without a digit
changing, so there is nothing to solve for; no second class has to be hidden. The price: rare classes do not count, and
the report says so. Counts never leave.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from semc.config import DisclosureConfig

DECIMALS: Final = 2
"""Digits of a rate that leaves."""
MIN_SHOWN_CLASSES: Final = 2
"""With fewer shown classes there is nothing to be confused with, and no score worth telling."""


@dataclass(frozen=True)
class DisclosedScores:
    """What leaves a site of its test patients: rates in [0, 1] with two decimals, over the shown classes."""

    accuracy: float
    """Share right; a patient counts once in each class of which there are frames."""
    balanced_accuracy: float
    """Mean recall."""
    macro_f1: float
    """Mean F1; a precision counts only images whose true class is shown."""
    recall: tuple[float | None, ...]
    """Of each study class; None = suppressed."""


def disclose(
    true_labels: Sequence[int],
    predicted: Sequence[int],
    patients: Sequence[Hashable],
    num_classes: int,
    rules: DisclosureConfig,
) -> DisclosedScores | None:
    """Return what may be told of a site's test images.

    Args:
        true_labels: Class id of every test image.
        predicted: Class id it was called.
        patients: Whose image it is.
        num_classes: K.
        rules: The hospital's least cell and least number of patients.

    Returns:
        Rates over the shown classes; None where fewer than `min_evaluation_patients` patients stand behind them, or
        fewer than two classes are shown.

    Raises:
        ValueError: The lengths differ, or a class id is outside 0 .. K - 1.
    """
    labels, called = _ids(true_labels, num_classes), _ids(predicted, num_classes)
    if not len(labels) == len(called) == len(patients):
        raise ValueError("labels, predictions and patients differ in number")
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    owners = np.asarray([numbers[patient] for patient in patients], dtype=np.int64)
    cells = [len(np.unique(owners[labels == k])) for k in range(num_classes)]
    shown = np.asarray([k for k in range(num_classes) if cells[k] >= rules.min_cell], dtype=np.int64)
    entering = np.isin(labels, shown)
    if len(shown) < MIN_SHOWN_CLASSES or len(np.unique(owners[entering])) < rules.min_evaluation_patients:
        return None
    counts_KK = _patient_counts(labels[entering], called[entering], owners[entering], num_classes)
    hits, present, named = (
        np.diagonal(counts_KK)[shown],
        counts_KK.sum(axis=1)[shown],
        counts_KK.sum(axis=0)[shown],
    )
    recall = hits / present
    return DisclosedScores(
        accuracy=_rounded(hits.sum() / present.sum()),
        balanced_accuracy=_rounded(recall.mean()),
        macro_f1=_rounded((2 * hits / (present + named)).mean()),
        recall=tuple(
            _rounded(recall[int(np.flatnonzero(shown == k)[0])]) if k in shown else None
            for k in range(num_classes)
        ),
    )


def _patient_counts(
    labels: NDArray[np.int64], called: NDArray[np.int64], owners: NDArray[np.int64], num_classes: int
) -> NDArray[np.float64]:
    """Return the confusion [K, K] in which each patient's frames of a class share the weight 1.

    Without it one patient with many frames would be most of a class's rate.
    """
    pairs, inverse, frames = np.unique(owners * num_classes + labels, return_inverse=True, return_counts=True)
    weights = 1.0 / frames[inverse] if len(pairs) else np.zeros(0)
    cells = np.bincount(labels * num_classes + called, weights=weights, minlength=num_classes**2)
    return np.asarray(cells, dtype=np.float64).reshape(num_classes, num_classes)


def _ids(values: Sequence[int], num_classes: int) -> NDArray[np.int64]:
    ids = np.asarray(values, dtype=np.int64).reshape(-1)
    if ids.size and (ids.min() < 0 or ids.max() >= num_classes):
        raise ValueError("a class id is outside the ontology")
    return ids


def _rounded(rate: float) -> float:
    """Return a rate with the decimals that leave; the sum of shares may exceed 1 by a rounding error."""
    return round(min(1.0, max(0.0, float(rate))), DECIMALS)
