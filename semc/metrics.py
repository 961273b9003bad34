"""Counts first, scores last: confusion matrices add across batches, rounds and sites; F1 scores do not.

Macro averages run over the classes with at least one image (support > 0): a class that a site has no test
image of has no recall, and calling it 0 would punish the site for its patients. A class that has images but
is never predicted has precision 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ClassScores:
    """One row of a per-class table."""

    index: int
    """Study-wide class id."""
    support: int
    """Images of this class."""
    predicted: int
    """Images called this class."""
    precision: float | None
    """None where nothing was called this class."""
    recall: float | None
    """Sensitivity; None where there is no image of this class."""
    specificity: float | None
    """None where every image is of this class."""
    f1: float | None
    """None where the class was neither present nor predicted."""


class Confusion:
    """How many images of each class (row) were called which class (column).

    Args:
        counts_KK: Non-negative integers, rows truth, columns prediction, K classes.

    Raises:
        ValueError: Not a square matrix of non-negative integers.
    """

    def __init__(self, counts_KK: Counts | Sequence[Sequence[int]]) -> None:
        counts = np.asarray(counts_KK)
        if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.shape[0] == 0:
            raise ValueError("a confusion matrix is square")
        if not np.issubdtype(counts.dtype, np.integer) or (counts.astype(np.int64) < 0).any():
            raise ValueError("a confusion matrix holds non-negative integers")
        self._counts: Counts = counts.astype(np.int64)
        self._counts.setflags(write=False)

    @classmethod
    def empty(cls, num_classes: int) -> Confusion:
        """Return a matrix of zeros."""
        return cls(np.zeros((num_classes, num_classes), dtype=np.int64))

    @classmethod
    def from_predictions(
        cls, labels_B: Sequence[int], predicted_B: Sequence[int], num_classes: int
    ) -> Confusion:
        """Count pairs of true and predicted class ids.

        Raises:
            ValueError: The lengths differ, or an id is outside 0 .. num_classes - 1.
        """
        labels = np.asarray(labels_B, dtype=np.int64).reshape(-1)
        predicted = np.asarray(predicted_B, dtype=np.int64).reshape(-1)
        if labels.shape != predicted.shape:
            raise ValueError("labels and predictions differ in number")
        ids = np.concatenate([labels, predicted])
        if ids.size and (ids.min() < 0 or ids.max() >= num_classes):
            raise ValueError("a class id is outside the ontology")
        counts = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
        return cls(counts.reshape(num_classes, num_classes))

    @classmethod
    def from_list(cls, counts: Sequence[int], num_classes: int) -> Confusion:
        """Read the row-major list of :meth:`to_list`.

        Raises:
            ValueError: Not num_classes**2 non-negative integers.
        """
        if len(counts) != num_classes**2:
            raise ValueError(f"a confusion matrix of {num_classes} classes has {num_classes**2} counts")
        return cls(np.asarray(counts).reshape(num_classes, num_classes))

    def to_list(self) -> list[int]:
        """Return the counts row by row, as they travel in a message."""
        return [int(count) for count in self._counts.reshape(-1)]

    def __add__(self, other: Confusion) -> Confusion:
        """Pool two sets of images.

        Raises:
            ValueError: The numbers of classes differ.
        """
        if self.num_classes != other.num_classes:
            raise ValueError("confusion matrices of different studies")
        return Confusion(self._counts + other._counts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Confusion) and np.array_equal(self._counts, other._counts)

    def __hash__(self) -> int:
        return hash(self._counts.tobytes())

    def __repr__(self) -> str:
        return f"Confusion({self._counts.tolist()})"

    @property
    def counts(self) -> Counts:
        """The counts [K, K], read-only."""
        return self._counts

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self._counts.shape[0])

    @property
    def num_examples(self) -> int:
        """Images counted."""
        return int(self._counts.sum())

    @property
    def support(self) -> Counts:
        """Images per true class [K]."""
        return np.asarray(self._counts.sum(axis=1))

    @property
    def accuracy(self) -> float | None:
        """Share of images called right; None without images, as for every score below."""
        return float(np.trace(self._counts)) / self.num_examples if self.num_examples else None

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean recall over the classes present; the same number as :attr:`macro_recall`."""
        return self.macro_recall

    @property
    def macro_recall(self) -> float | None:
        """Mean recall (sensitivity) over the classes present."""
        return _mean([row.recall or 0.0 for row in self._present()])

    @property
    def macro_f1(self) -> float | None:
        """Mean F1 over the classes present."""
        return _mean([row.f1 or 0.0 for row in self._present()])

    def per_class(self) -> tuple[ClassScores, ...]:
        """Return the scores of every class in the order of the ontology, absent ones included."""
        hits = np.diagonal(self._counts)
        support, predicted, total = self.support, self._counts.sum(axis=0), self.num_examples
        return tuple(
            ClassScores(
                index=k,
                support=int(support[k]),
                predicted=int(predicted[k]),
                precision=_ratio(hits[k], predicted[k]),
                recall=_ratio(hits[k], support[k]),
                specificity=_ratio(total - support[k] - predicted[k] + hits[k], total - support[k]),
                f1=_ratio(2 * hits[k], support[k] + predicted[k]),
            )
            for k in range(self.num_classes)
        )

    def _present(self) -> list[ClassScores]:
        return [row for row in self.per_class() if row.support > 0]


def _ratio(numerator: int, denominator: int) -> float | None:
    return float(numerator) / float(denominator) if denominator else None


def _mean(values: Sequence[float]) -> float | None:
    return float(sum(values)) / len(values) if values else None
