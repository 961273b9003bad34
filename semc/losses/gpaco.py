"""Generalised parametric contrastive loss: class scores and pool in one softmax, as the released code trains.

Shape legend: A anchors, P pool rows, K classes, S = K + P softmax entries.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from semc.losses.contrastive_loss import ContrastiveLoss
from semc.losses.pool import ContrastivePool


def gpaco_loss(
    cosine_AP: Tensor,
    logits_AK: Tensor,
    pool: ContrastivePool,
    *,
    temperature: float,
    alpha: float,
    beta: float,
    smoothing: float,
    adjustment_K: Tensor | None = None,
) -> ContrastiveLoss:
    """Return the parametric contrastive loss of every anchor.

    ``s_i = [z_n + a | p_i.pool / tau]``, ``q_i = [beta smoothed one-hot(y_i) | alpha 1(y_p = y_i)]``, self
    excluded from both, ``l_i = -sum_j q_ij log softmax(s_i)_j / sum_j q_ij``

    The smoothed one-hot is ``(1 - eps) one-hot + eps / K``; a class removed by the adjustment gets no share
    of eps. The floor is the entropy of the normalised q_i, reached where softmax(s_i) equals it.

    Args:
        cosine_AP: ``pool.cosines(A)``.
        logits_AK: Scores z_n of the anchor's own expert for its image, in the order of the anchors.
        pool: The rows compared with; its first A are the anchors.
        temperature: tau of the pool's block.
        alpha: Weight of each pool row of the anchor's class.
        beta: Weight of the class block.
        smoothing: eps.
        adjustment_K: Adjustment a of the class block, -inf for absent classes; None: no adjustment.

    Returns:
        One row per anchor; all are active, the class block is a positive.
    """
    num_anchors, num_classes = logits_AK.shape
    labels_A = pool.labels_P[:num_anchors]
    present_K = torch.ones(num_classes, dtype=torch.bool, device=logits_AK.device)
    if adjustment_K is not None:
        logits_AK = logits_AK + adjustment_K.to(logits_AK)
        present_K = torch.isfinite(adjustment_K).to(logits_AK.device)
    others_AP = pool.others(num_anchors)
    excluded_AS = torch.cat([~present_K.expand(num_anchors, -1), ~others_AP], dim=1)
    scores_AS = torch.cat([logits_AK, cosine_AP / temperature], dim=1).masked_fill(excluded_AS, -torch.inf)
    # Excluded entries have weight 0 and log-probability -inf: replaced by 0, since 0 * inf is NaN.
    log_probability_AS = scores_AS.log_softmax(1).masked_fill(excluded_AS, 0.0)

    dtype = cosine_AP.dtype
    one_hot_AK = functional.one_hot(labels_A, num_classes).to(dtype)
    smoothed_AK = (1.0 - smoothing) * one_hot_AK + smoothing * present_K.to(dtype) / present_K.sum()
    positives_AP = (others_AP & pool.same_label(num_anchors)).to(dtype)
    weights_AS = torch.cat([beta * smoothed_AK, alpha * positives_AP], dim=1)
    target_AS = weights_AS / weights_AS.sum(1, keepdim=True)
    return ContrastiveLoss(
        loss_R=-(target_AS * log_probability_AS).sum(1),
        floor_R=torch.special.entr(target_AS).sum(1),
        active_R=torch.ones_like(labels_A, dtype=torch.bool),
    )
