"""Classification losses per sample (eq. 18): plain, inverse-frequency weighted, logit-adjusted, FedLC.

Class counts are one site's own training counts. They shape that site's loss and never leave it.

Shape legend: B samples, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from semc.exit_codes import ExitCode, SemcError


def cross_entropy(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Return the plain cross-entropy of every sample.

    ``l_b = -log softmax(z_b)[y_b]``

    Args:
        logits_BK: Class scores z.
        labels_B: Class ids y, int64.

    Returns:
        loss_B, nats.
    """
    return functional.cross_entropy(logits_BK, labels_B, reduction="none")


def inverse_frequency_cross_entropy(logits_BK: Tensor, labels_B: Tensor, class_counts_K: Tensor) -> Tensor:
    """Return the cross-entropy of every sample, weighted by 1 / n_c.

    ``l_b = B w_{y_b} CE_b / sum_j w_{y_j}`` with ``w_c = 1 / n_c``: the mean over the batch is the usual
    weighted mean, so the loss scale does not depend on the counts.

    Args:
        logits_BK: Class scores z.
        labels_B: Class ids y, int64.
        class_counts_K: Training images n_c of each class at this site.

    Returns:
        loss_B, nats.

    Raises:
        SemcError: LABEL_UNKNOWN if a label's class has count zero.
    """
    check_labels_counted(labels_B, class_counts_K)
    weights_K = 1.0 / class_counts_K.to(logits_BK.dtype).clamp(min=1.0)
    weights_B = weights_K[labels_B]
    return weights_B / weights_B.mean() * cross_entropy(logits_BK, labels_B)


def logit_adjustment(class_counts_K: Tensor, tau: float) -> Tensor:
    """Return what logit adjustment adds to the class scores of this site.

    ``a_c = tau log pi_c`` with ``pi_c = n_c / sum n``; ``a_c = -inf`` where ``n_c = 0``, for any tau (also
    0): a class the site has never seen leaves the softmax, so the site does not push its scores down.

    Args:
        class_counts_K: Training images n_c of each class at this site.
        tau: Strength; 1 gives the Bayes-consistent correction.

    Returns:
        adjustment_K, float32.
    """
    counts_K = class_counts_K.to(torch.float32)
    log_prior_K = torch.log(counts_K.clamp(min=1.0) / counts_K.sum().clamp(min=1.0))
    return (tau * log_prior_K).masked_fill(counts_K == 0, -torch.inf)


def calibrated_margin(class_counts_K: Tensor, tau: float) -> Tensor:
    """Return what FedLC adds to the class scores of this site (Zhang et al. 2022, ICML, eq. 7).

    ``a_c = -tau n_c^(-1/4)``; ``a_c = -inf`` where ``n_c = 0``, for any tau. The pairwise margin the loss then asks
    of class y over class c is ``tau (n_y^(-1/4) - n_c^(-1/4))``: rare planes keep the larger one. The paper leaves y
    itself out of the denominator; here it stays in, so the loss is a cross-entropy, bounded below by 0.

    Args:
        class_counts_K: Training images n_c of each class at this site.
        tau: Strength.

    Returns:
        adjustment_K, float32.
    """
    counts_K = class_counts_K.to(torch.float32)
    return (-tau * counts_K.clamp(min=1.0).pow(-0.25)).masked_fill(counts_K == 0, -torch.inf)


def logit_adjusted_cross_entropy(logits_BK: Tensor, labels_B: Tensor, adjustment_K: Tensor) -> Tensor:
    """Return the logit-adjusted cross-entropy of every sample; training only.

    ``l_b = -log softmax(z_b + a)[y_b]``

    Args:
        logits_BK: Class scores z.
        labels_B: Class ids y, int64.
        adjustment_K: Result of :func:`logit_adjustment` or :func:`calibrated_margin`; -inf removes a class.

    Returns:
        loss_B, nats; finite, and so is its gradient.

    Raises:
        SemcError: LABEL_UNKNOWN if a label's class is removed: its loss would be infinite.
    """
    check_labels_counted(labels_B, torch.isfinite(adjustment_K))
    return cross_entropy(logits_BK + adjustment_K.to(logits_BK), labels_B)


def check_labels_counted(labels_B: Tensor, class_counts_K: Tensor) -> None:
    """Refuse labels of classes that the site's own counts say it does not have.

    Args:
        labels_B: Class ids, int64.
        class_counts_K: Counts, or a mask of the classes present.

    Raises:
        SemcError: LABEL_UNKNOWN.
    """
    if bool((class_counts_K.to(labels_B.device)[labels_B] == 0).any()):
        raise SemcError(
            ExitCode.LABEL_UNKNOWN,
            "A training label belongs to a class that this site's class counts do not contain.",
            "count the classes on the same training split that is trained on",
        )
