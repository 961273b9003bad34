"""The multi-expert contrastive loss of a batch (eq. 11-15), put together from the study's switches.

Shape legend: B images, N experts, K classes, A anchors, P pool rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from semc.config import ObjectiveConfig
from semc.datasets import Batch
from semc.losses import ContrastiveLoss, ContrastivePool, gpaco_loss, selfcon_loss, supcon_loss
from semc.models import SEMCOutput
from semc.objectives.memory_queue import MemoryQueue


@dataclass(frozen=True)
class ContrastiveTerm:
    """l_mc and what it is made of."""

    loss: ContrastiveLoss
    """One row per image."""
    parts: dict[str, Tensor]
    """Mean shifted value of `sup` and `self`, or of `gpaco`; detached scalars to report."""


def contrastive_term(
    config: ObjectiveConfig,
    output: SEMCOutput,
    batch: Batch,
    queue: MemoryQueue | None,
    progress: float,
    adjustment_K: Tensor | None,
) -> ContrastiveTerm:
    """Compute ``l_mc,b`` = mean over b's anchors of ``l_sup + lambda l_self``, or of GPaCo.

    Args:
        config: The study's objective section.
        output: The network's output, at least float32.
        batch: Labels and image ids.
        queue: Past keys; read, never written. None: the pool is the batch.
        progress: Elapsed share of the study; neighbours are mined from `selfcon_start_fraction` on: early
            embeddings would teach the network its own mistakes.
        adjustment_K: Logit adjustment of GPaCo's class scores, None for none.

    Raises:
        ValueError: The network has no embeddings.
    """
    if output.embeddings_NBD is None:
        raise ValueError("the contrastive objective needs a network with embeddings")
    num_images = len(batch.labels_B)
    pool = ContrastivePool.of_batch(output.embeddings_NBD, batch.labels_B, batch.ids_B)
    if queue is not None:
        queue.to(pool.embeddings_PD.device)
        pool = pool.with_queue(queue.embeddings_QD, queue.labels_Q, queue.ids_Q, queue.valid_Q)
    num_anchors = num_images if config.anchors == "first" else pool.num_batch_rows
    cosine_AP = pool.cosines(num_anchors)

    if config.mc_loss == "gpaco":
        gpaco = gpaco_loss(
            cosine_AP,
            output.expert_logits_NBK.flatten(0, 1)[:num_anchors],
            pool,
            temperature=config.temperature,
            alpha=config.gpaco_alpha,
            beta=config.gpaco_beta,
            smoothing=config.gpaco_smoothing,
            adjustment_K=adjustment_K,
        ).per_image(num_images)
        return ContrastiveTerm(gpaco, {"gpaco": gpaco.mean_shifted()})

    sup = supcon_loss(cosine_AP, pool, config.temperature).per_image(num_images)
    if config.selfcon_weight == 0:
        return ContrastiveTerm(sup, {"sup": sup.mean_shifted()})
    own = selfcon_loss(
        cosine_AP,
        pool,
        config.selfcon_temperature,
        config.selfcon_neighbours if progress >= config.selfcon_start_fraction else 0,
        config.selfcon_threshold,
    ).per_image(num_images)
    return ContrastiveTerm(
        loss=sup.plus(own, config.selfcon_weight),
        parts={"sup": sup.mean_shifted(), "self": own.mean_shifted()},
    )
