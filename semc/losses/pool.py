"""The rows anchors are compared with (eq. 11-12): the batch's embeddings of every expert, then the queue.

Shape legend: N experts, B images, D embedding, Q queue slots, P pool rows, A anchors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ContrastivePool:
    """``[p_1; ...; p_N; queue]``, expert-major, with labels and image ids alike.

    Anchors are always the pool's first rows (B of expert 1, or all N B), so an anchor is told from the rest
    of the pool by its position, never by comparing values.
    """

    embeddings_PD: Tensor
    """Unit-norm rows; those of the batch carry gradient."""
    labels_P: Tensor
    """Class ids, int64."""
    ids_P: Tensor
    """Image ids within the site, int64; views of one image share one."""
    num_batch_rows: int
    """N B: rows from here on are past keys."""

    @classmethod
    def of_batch(cls, embeddings_NBD: Tensor, labels_B: Tensor, ids_B: Tensor) -> ContrastivePool:
        """Lay the experts' embeddings of one batch below each other."""
        experts, images, _ = embeddings_NBD.shape
        return cls(
            embeddings_PD=embeddings_NBD.flatten(0, 1),
            labels_P=labels_B.repeat(experts),
            ids_P=ids_B.repeat(experts),
            num_batch_rows=experts * images,
        )

    def with_queue(
        self, embeddings_QD: Tensor, labels_Q: Tensor, ids_Q: Tensor, valid_Q: Tensor
    ) -> ContrastivePool:
        """Append the queue's valid rows.

        Invalid rows are dropped, not masked: a queue without valid rows is bit for bit no queue.

        Args:
            embeddings_QD: Past keys, detached.
            labels_Q: Their class ids.
            ids_Q: Their image ids.
            valid_Q: bool, slots that hold a key.
        """
        rows_QD = embeddings_QD[valid_Q].to(self.embeddings_PD)
        return ContrastivePool(
            embeddings_PD=torch.cat([self.embeddings_PD, rows_QD]),
            labels_P=torch.cat([self.labels_P, labels_Q[valid_Q]]),
            ids_P=torch.cat([self.ids_P, ids_Q[valid_Q]]),
            num_batch_rows=self.num_batch_rows,
        )

    def cosines(self, num_anchors: int) -> Tensor:
        """Return cosine_AP of the first ``num_anchors`` rows with every row."""
        return self.embeddings_PD[:num_anchors] @ self.embeddings_PD.T

    def others(self, num_anchors: int) -> Tensor:
        """Return the mask A(i) as bool others_AP: every row except the anchor itself, by position."""
        return ~torch.eye(
            num_anchors, len(self.embeddings_PD), dtype=torch.bool, device=self.embeddings_PD.device
        )

    def same_label(self, num_anchors: int) -> Tensor:
        """Return bool same_AP: rows of the anchor's class, itself included."""
        return self.labels_P[:num_anchors, None] == self.labels_P

    def same_image(self, num_anchors: int) -> Tensor:
        """Return bool same_AP: rows of the anchor's image, itself included."""
        return self.ids_P[:num_anchors, None] == self.ids_P
