"""Equations on tensors: per-sample values, no network, no state."""

from semc.losses.balance import importance_cv_squared
from semc.losses.contrastive_loss import ContrastiveLoss, positive_log_likelihood
from semc.losses.cross_entropy import (
    calibrated_margin,
    check_labels_counted,
    cross_entropy,
    inverse_frequency_cross_entropy,
    logit_adjusted_cross_entropy,
    logit_adjustment,
)
from semc.losses.gpaco import gpaco_loss
from semc.losses.pool import ContrastivePool
from semc.losses.prototype_contrast import prototype_contrast
from semc.losses.selfcon import mined_neighbours, selfcon_loss
from semc.losses.supcon import supcon_loss

__all__ = [
    "ContrastiveLoss",
    "ContrastivePool",
    "calibrated_margin",
    "check_labels_counted",
    "cross_entropy",
    "gpaco_loss",
    "importance_cv_squared",
    "inverse_frequency_cross_entropy",
    "logit_adjusted_cross_entropy",
    "logit_adjustment",
    "mined_neighbours",
    "positive_log_likelihood",
    "prototype_contrast",
    "selfcon_loss",
    "supcon_loss",
]
