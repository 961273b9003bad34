"""Contrast of one patient's views with each other and with learnable class prototypes.

Shape legend: N experts, B frames, K classes, D embedding, A = N B anchors, P = A + K pool rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from semc.losses.contrastive_loss import ContrastiveLoss, positive_log_likelihood


def prototype_contrast(
    embeddings_NBD: Tensor, labels_B: Tensor, prototypes_KD: Tensor, temperature: float
) -> ContrastiveLoss:
    """Return the contrastive loss of every view of one patient's frames.

    ``l_fn = -1/|P| sum_{p in P} log[ exp(p_fn.p / tau) / sum_{a in A} exp(p_fn.a / tau) ]``, where P holds the other
    experts' views of frame f, all views of this patient's other frames of the same class, and the prototype
    c_{y_f}; A holds P and the prototypes of all classes. That is SupCon (eq. 13) with the other patients of the batch
    and the queue replaced by weights: a function of this patient alone. Views of the patient's frames of other classes
    are left out of A, as the prototypes already push classes apart.

    Args:
        embeddings_NBD: Unit-norm p_n of the patient's frames.
        labels_B: Class ids, int64.
        prototypes_KD: c, of any length; they are brought to unit length here.
        temperature: tau.

    Returns:
        One row per view, expert-major (row n B + f); all are active.
    """
    num_classes = len(prototypes_KD)
    views_AD = embeddings_NBD.flatten(0, 1)
    labels_A = labels_B.repeat(len(embeddings_NBD))
    pool_PD = torch.cat([views_AD, functional.normalize(prototypes_KD, dim=1)])
    labels_P = torch.cat([labels_A, torch.arange(num_classes, device=labels_A.device)])
    others_AP = torch.ones(len(views_AD), len(pool_PD), dtype=torch.bool, device=labels_A.device)
    others_AP.fill_diagonal_(False)
    positives_AP = (labels_A[:, None] == labels_P) & others_AP
    denominator_AP = positives_AP.clone()
    denominator_AP[:, len(views_AD) :] = True
    return positive_log_likelihood(views_AD @ pool_PD.T / temperature, positives_AP, denominator_AP)
