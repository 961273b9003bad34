"""The study's classification loss, with one site's own class counts built in (eq. 18)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from semc.config import ObjectiveConfig
from semc.losses import (
    calibrated_margin,
    cross_entropy,
    inverse_frequency_cross_entropy,
    logit_adjusted_cross_entropy,
    logit_adjustment,
)

_ADJUSTMENTS: Final[Mapping[str, Callable[[Tensor, float], Tensor]]] = {
    "logit_adjusted": logit_adjustment,
    "fedlc": calibrated_margin,
}


class ClassLoss:
    """Cross-entropy per sample: plain, inverse-frequency, logit-adjusted or with FedLC's margin.

    Args:
        config: The study's objective section.
        class_counts: Training images of each study class at this site; they stay here.
    """

    def __init__(self, config: ObjectiveConfig, class_counts: Sequence[int]) -> None:
        self._form = config.cross_entropy
        self._counts_K = torch.tensor(list(class_counts))
        self.adjustment_K: Tensor | None = None
        """Added to class scores in training, -inf for absent classes; None where the study asks none."""
        if self._form in _ADJUSTMENTS:
            self.adjustment_K = _ADJUSTMENTS[self._form](self._counts_K, config.logit_adjustment_tau)

    def __call__(self, logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        """Return loss_B.

        Raises:
            SemcError: LABEL_UNKNOWN if a label's class is not among the counts (where the form uses them).
        """
        if self.adjustment_K is not None:
            return logit_adjusted_cross_entropy(logits_BK, labels_B, self.adjustment_K)
        if self._form == "inverse_frequency":
            return inverse_frequency_cross_entropy(logits_BK, labels_B, self._counts_K.to(logits_BK.device))
        return cross_entropy(logits_BK, labels_B)
