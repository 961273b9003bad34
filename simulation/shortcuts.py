"""How much a cue that is not anatomy (the centre, the image's size) tells of the class or of the centre."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.stats.contingency import association


class Shortcut(BaseModel):
    """A cue's worth, judged on patients it was not learnt from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    cramers_v: float
    """Association of cue and target over images: 0 = none, 1 = the cue decides."""
    cue_accuracy: float
    """Accuracy of the cue's most frequent target among all other patients."""
    blind_accuracy: float
    """The same without the cue: the most frequent target among all other patients."""

    @property
    def gain(self) -> float:
        """Accuracy that the cue adds."""
        return self.cue_accuracy - self.blind_accuracy


def shortcut(cue: pd.Series, target: pd.Series, group: pd.Series) -> Shortcut:
    """Measure what `cue` tells of `target`, leaving out each patient in turn.

    Args:
        cue: One value per image.
        target: One value per image.
        group: The image's patient or stream.
    """
    cues, targets, groups = (pd.factorize(values)[0] for values in (cue, target, group))
    num_targets = int(targets.max()) + 1
    total_K = np.bincount(targets, minlength=num_targets)
    by_cue_CK = _counts(cues, targets, num_targets)
    by_group_GK = _counts(groups, targets, num_targets)
    pairs, pair_of = np.unique(np.stack([cues, groups]), axis=1, return_inverse=True)
    by_pair_PK = _counts(pair_of.ravel(), targets, num_targets)
    blind_PK = total_K - by_group_GK[pairs[1]]
    rest_PK = by_cue_CK[pairs[0]] - by_pair_PK
    # A value that only this patient has tells nothing about others.
    rest_PK = np.where(rest_PK.sum(axis=1, keepdims=True) > 0, rest_PK, blind_PK)
    return Shortcut(
        cramers_v=_cramers_v(by_cue_CK),
        cue_accuracy=_accuracy(rest_PK, by_pair_PK),
        blind_accuracy=_accuracy(blind_PK, by_pair_PK),
    )


def _counts(rows: NDArray[np.intp], columns: NDArray[np.intp], num_columns: int) -> NDArray[np.int64]:
    flat = np.bincount(rows * num_columns + columns, minlength=(int(rows.max()) + 1) * num_columns)
    return flat.reshape(-1, num_columns).astype(np.int64)


def _cramers_v(counts_CK: NDArray[np.int64]) -> float:
    if min(counts_CK.shape) < 2:
        return 0.0
    return float(association(counts_CK, method="cramer"))


def _accuracy(seen_PK: NDArray[np.int64], own_PK: NDArray[np.int64]) -> float:
    """Return the share of own images whose target is the most frequent one seen."""
    chosen_P = seen_PK.argmax(axis=1)
    return float(own_PK[np.arange(len(own_PK)), chosen_P].sum() / own_PK.sum())
