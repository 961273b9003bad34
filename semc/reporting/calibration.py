"""Whether a probability means what it says: expected calibration error and the curve behind it.

Top-label calibration of Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), eq. 2, 3 and 5: the
images are sorted into M = 15 bins ((m - 1)/M, m/M] by the probability of the class they were called, and

    ECE = sum over bins of n_m / n * |accuracy_m - confidence_m|.

0 is perfect. It depends on the bins and is biased upwards where images are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from semc.reporting.predictions import Predictions

NUM_BINS: Final = 15


@dataclass(frozen=True)
class CalibrationBin:
    """The images of one range of confidence."""

    num_images: int
    confidence: float
    """Mean probability of the called class."""
    accuracy: float
    """Share called right."""


@dataclass(frozen=True)
class Reliability:
    """The reliability curve of one or more records."""

    bins: tuple[CalibrationBin, ...]
    """Bins with an image, lowest confidence first."""

    @property
    def num_images(self) -> int:
        """Images in all bins."""
        return sum(item.num_images for item in self.bins)

    @property
    def ece(self) -> float:
        """Expected calibration error, 0 to 1."""
        gaps = sum(item.num_images * abs(item.accuracy - item.confidence) for item in self.bins)
        return gaps / self.num_images


def reliability(records: Sequence[Predictions], num_bins: int = NUM_BINS) -> Reliability:
    """Sort the images of records (one or several seeds) into equal-width bins of confidence.

    Raises:
        ValueError: There is no record.
    """
    if not records:
        raise ValueError("no predictions")
    confidence_B = np.concatenate([record.probabilities_BK.max(axis=1) for record in records]).astype(
        np.float64
    )
    right_B = np.concatenate([record.predicted_B == np.asarray(record.labels) for record in records])
    bin_B = np.clip(np.ceil(confidence_B * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    return Reliability(
        tuple(
            CalibrationBin(
                num_images=int(inside_B.sum()),
                confidence=float(confidence_B[inside_B].mean()),
                accuracy=float(right_B[inside_B].mean()),
            )
            for inside_B in (bin_B == number for number in range(num_bins))
            if inside_B.any()
        )
    )


def mean_ece(records: Sequence[Predictions]) -> float:
    """Return the mean over records (seeds) of their ECE; pooling seeds would flatter it."""
    return sum(reliability([record]).ece for record in records) / len(records)
