"""Supervised contrastive loss over batch and queue (eq. 13).

Shape legend: A anchors, P pool rows.
"""

from __future__ import annotations

from torch import Tensor

from semc.losses.contrastive_loss import ContrastiveLoss, positive_log_likelihood
from semc.losses.pool import ContrastivePool


def supcon_loss(cosine_AP: Tensor, pool: ContrastivePool, temperature: float) -> ContrastiveLoss:
    """Return the supervised contrastive loss of every anchor.

    ``l_sup,i = -1/|P(i)| sum_{p in P(i)} log[ exp(p_i.p_p / tau) / sum_{a in A(i)} exp(p_i.p_a / tau) ]``

    A(i) is the pool without the anchor itself, P(i) its rows with the anchor's label. The floor is log|P(i)|:
    with 290 positives the loss cannot fall below 5.7, so weights and reports use the shifted value.

    Args:
        cosine_AP: ``pool.cosines(A)``.
        pool: The rows compared with; its first A are the anchors.
        temperature: tau.

    Returns:
        One row per anchor; anchors without positives are inactive.
    """
    others_AP = pool.others(len(cosine_AP))
    positives_AP = others_AP & pool.same_label(len(cosine_AP))
    return positive_log_likelihood(cosine_AP / temperature, positives_AP, others_AP)
