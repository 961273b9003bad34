"""The value every contrastive loss returns, and the one formula they share.

Shape legend: R rows (anchors or images), A anchors, P pool rows, B images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ContrastiveLoss:
    """A contrastive loss per row, with the least value it can take there.

    A row without positives is inactive: it holds exact zeros and carries no gradient.
    """

    loss_R: Tensor
    """The equation's value, nats."""
    floor_R: Tensor
    """Its lower bound given the positives (log|P|, or a target's entropy); a constant to the encoder."""
    active_R: Tensor
    """bool: the row has at least one positive."""

    @property
    def shifted(self) -> Tensor:
        """Loss minus floor: comparable across queue sizes and class mixes, with the same encoder gradient."""
        return self.loss_R - self.floor_R

    def per_image(self, num_images: int) -> ContrastiveLoss:
        """Average over the active anchors of each image.

        ``l_b = mean over b's anchors l_i`` for anchors in expert-major order (row ``n B + b`` is image b).

        Args:
            num_images: B; the number of rows is a multiple of it.

        Returns:
            The same kind of value with B rows.
        """
        active_VB = self.active_R.view(-1, num_images)
        count_B = active_VB.sum(0).clamp(min=1)
        return ContrastiveLoss(
            loss_R=self.loss_R.view(-1, num_images).sum(0) / count_B,
            floor_R=self.floor_R.view(-1, num_images).sum(0) / count_B,
            active_R=active_VB.any(0),
        )

    def plus(self, other: ContrastiveLoss, weight: float) -> ContrastiveLoss:
        """Return ``self + weight * other`` (eq. 15); a row is active where either is."""
        return ContrastiveLoss(
            loss_R=self.loss_R + weight * other.loss_R,
            floor_R=self.floor_R + weight * other.floor_R,
            active_R=self.active_R | other.active_R,
        )

    def mean_shifted(self) -> Tensor:
        """Return the mean shifted loss over the active rows (0 where there are none), detached."""
        return self.shifted.detach().sum() / self.active_R.sum().clamp(min=1)


def positive_log_likelihood(
    logits_AP: Tensor, positives_AP: Tensor, denominator_AP: Tensor
) -> ContrastiveLoss:
    """Return the mean negative log-probability of each anchor's positives (eq. 13 and 14).

    ``l_i = -1/|P(i)| sum_{p in P(i)} log[ exp(s_ip) / sum_{a in A(i)} exp(s_ia) ]``

    By concavity of the logarithm, ``l_i >= log|P(i)|`` if P(i) is part of A(i); that bound is the floor.

    Args:
        logits_AP: Similarities s, already divided by the temperature.
        positives_AP: bool, P(i).
        denominator_AP: bool, A(i); contains P(i).

    Returns:
        One row per anchor; anchors without positives are inactive.
    """
    count_A = positives_AP.sum(1)
    active_A = count_A > 0
    log_denominator_A = logits_AP.masked_fill(~denominator_AP, -torch.inf).logsumexp(1)
    positive_mean_A = (logits_AP * positives_AP).sum(1) / count_A.clamp(min=1)
    loss_A = torch.where(active_A, log_denominator_A - positive_mean_A, 0.0)
    floor_A = count_A.clamp(min=1).to(logits_AP.dtype).log()
    return ContrastiveLoss(loss_A, floor_A, active_A)
