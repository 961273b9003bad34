"""Self-contrastive loss without labels (eq. 14): expert views of one image, and mined look-alikes.

Shape legend: A anchors, P pool rows, M batch rows of the pool (N experts x B images).
"""

from __future__ import annotations

import torch
from torch import Tensor

from semc.losses.contrastive_loss import ContrastiveLoss, positive_log_likelihood
from semc.losses.pool import ContrastivePool


def selfcon_loss(
    cosine_AP: Tensor,
    pool: ContrastivePool,
    temperature: float,
    neighbours: int = 0,
    threshold: float = 0.8,
) -> ContrastiveLoss:
    """Return the self-contrastive loss of every anchor.

    ``l_self,i = -1/|P_s(i)| sum_{p in P_s(i)} log[ exp(p_i.p_p / t) / sum_{a in A_s(i)} exp(p_i.p_a / t) ]``
    with t = tau_s and ``P_s(i) = V(i) + N_k(i)``:

    * V(i): the batch's other embeddings of the anchor's image (the other experts' views).
    * N_k(i): rows of other images among the k most similar and of cosine at least theta, see
      :func:`mined_neighbours`.
    * A_s(i): the pool without the anchor, and without queue rows of its image that are not positives: a site
      with 300 images keeps several old keys of each, and an image must not be its own negative.

    Args:
        cosine_AP: ``pool.cosines(A)``.
        pool: The rows compared with; its first A are the anchors. Labels are not read.
        temperature: tau_s.
        neighbours: k; 0 leaves only the views.
        threshold: theta, least cosine of a mined positive.

    Returns:
        One row per anchor; anchors without positives (one expert and nothing mined) are inactive.
    """
    others_AP = pool.others(len(cosine_AP))
    same_image_AP = pool.same_image(len(cosine_AP))
    in_batch_P = torch.arange(cosine_AP.shape[1], device=cosine_AP.device) < pool.num_batch_rows
    positives_AP = others_AP & same_image_AP & in_batch_P
    if neighbours > 0:
        positives_AP = positives_AP | mined_neighbours(pool, neighbours, threshold)[: len(cosine_AP)]
    old_keys_AP = same_image_AP & ~in_batch_P & ~positives_AP
    return positive_log_likelihood(cosine_AP / temperature, positives_AP, others_AP & ~old_keys_AP)


@torch.no_grad()
def mined_neighbours(pool: ContrastivePool, neighbours: int, threshold: float) -> Tensor:
    """Return N_k as bool mined_MP for every batch row, anchor or not: mutuality needs both ends.

    ``N_k(i) = {a : a among the k rows of other images with the largest cosine, cosine >= theta}``; a
    neighbour in the batch must name i in return (a past key cannot). No gradient passes through the choice.

    Args:
        pool: The rows compared with.
        neighbours: k.
        threshold: theta.
    """
    rows = pool.num_batch_rows
    candidates_MP = pool.cosines(rows).masked_fill(pool.same_image(rows), -torch.inf)
    nearest_MP = torch.zeros_like(candidates_MP, dtype=torch.bool)
    nearest_MP.scatter_(1, candidates_MP.topk(min(neighbours, candidates_MP.shape[1]), dim=1).indices, True)
    mined_MP = nearest_MP & (candidates_MP >= threshold)
    mutual_MM = mined_MP[:, :rows] & mined_MP[:, :rows].T
    return torch.cat([mutual_MM, mined_MP[:, rows:]], dim=1)
