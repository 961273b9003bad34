"""The memory queue of past embeddings (eq. 11-12): local to a site, outside the network, never exchanged.

Deviations from the released code: no forward pass writes to it, a batch of any size wraps around, rows (not
columns) have unit norm, slots without a key are invalid instead of random, and every row knows its image.

Shape legend: Q slots, D embedding, M pushed rows, R rings.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from semc.exit_codes import ExitCode, SemcError
from semc.objectives.local_tensors import check_tensors, copy_tensors

QUEUE_FLOOR = 256
"""Slots a small site keeps at least (where the study's queue has that many)."""

NO_IMAGE = -1
"""Label or image id of a slot without one."""


def queue_capacity(queue_size: int, num_train: int) -> int:
    """Return a site's number of slots: ``K_i = min(queue_size, n_i)``, but at least ``min(256, queue_size)``.

    More slots than images would hold several keys of each image.

    Args:
        queue_size: The study's largest queue.
        num_train: Training images n_i of the site.
    """
    return max(min(queue_size, num_train), min(QUEUE_FLOOR, queue_size))


class MemoryQueue:
    """A first-in-first-out ring of unit-norm keys with label, image id and age, or one such ring per class.

    Args:
        capacity: Most rows kept, at least 1. With a ring per class each has ``max(1, capacity // num_rings)``
            slots, whether or not the site has the class: a rare plane keeps as many keys as a frequent one.
        embedding_dim: D.
        num_rings: 1 for a plain queue, the number of classes for a class-balanced one.
    """

    def __init__(self, capacity: int, embedding_dim: int, num_rings: int = 1) -> None:
        if capacity < 1 or num_rings < 1:
            raise ValueError("a queue needs at least one slot and one ring")
        self._num_rings = num_rings
        self._slots = max(1, capacity // num_rings)
        rows = self._slots * num_rings
        self.embeddings_QD = torch.zeros(rows, embedding_dim)
        """float32; unit norm where valid."""
        self.labels_Q = torch.full((rows,), NO_IMAGE)
        self.ids_Q = torch.full((rows,), NO_IMAGE)
        self.ages_Q = torch.zeros(rows, dtype=torch.int64)
        """Pushes (= training steps) since the row was written."""
        self.valid_Q = torch.zeros(rows, dtype=torch.bool)
        self._heads_R = torch.zeros(num_rings, dtype=torch.int64)

    def __len__(self) -> int:
        """Return the number of slots, valid or not."""
        return len(self.labels_Q)

    def fill_like_reference(self, num_classes: int, seed: int) -> None:
        """Start as the released code does: rows normalised over the wrong axis, random labels, all valid.

        Its rows have norm near sqrt(D / Q) = 0.25 and act as false positives until they are overwritten; kept
        for parity only.

        Args:
            num_classes: Labels are drawn below it.
            seed: Of the draw.
        """
        generator = torch.Generator().manual_seed(seed)
        noise_QD = torch.randn(self.embeddings_QD.shape, generator=generator)
        self.embeddings_QD = functional.normalize(noise_QD, dim=0)
        self.labels_Q = torch.randint(num_classes, self.labels_Q.shape, generator=generator)
        self.valid_Q = torch.ones_like(self.valid_Q)

    @torch.no_grad()
    def push(self, embeddings_MD: Tensor, labels_M: Tensor, ids_M: Tensor) -> None:
        """Write rows over the oldest ones; of more rows than slots the last ones stay.

        Rows are stored detached, in float32, with unit norm. A row that has no direction (not finite after a
        half-precision overflow, or zero) takes its slot as an invalid row: it would poison every later step.

        Args:
            embeddings_MD: Keys.
            labels_M: Their class ids, int64.
            ids_M: Their image ids, int64.
        """
        self.to(embeddings_MD.device)
        rows_MD = embeddings_MD.detach().float()
        norm_M = torch.linalg.vector_norm(rows_MD, dim=1)
        usable_M = torch.isfinite(norm_M) & (norm_M > 0)
        rows_MD = torch.where(usable_M[:, None], rows_MD / norm_M[:, None], 0.0)

        ring_M = labels_M if self._num_rings > 1 else torch.zeros_like(labels_M)
        member_MR = functional.one_hot(ring_M, self._num_rings)
        count_R = member_MR.sum(0)
        rank_M = member_MR.cumsum(0).gather(1, ring_M[:, None]).squeeze(1) - 1
        last_M = rank_M >= (count_R - self._slots)[ring_M]
        slot_M = ring_M * self._slots + (self._heads_R[ring_M] + rank_M) % self._slots

        slots = slot_M[last_M]
        self.ages_Q += 1
        self.embeddings_QD[slots] = rows_MD[last_M]
        self.labels_Q[slots] = labels_M[last_M]
        self.ids_Q[slots] = ids_M[last_M]
        self.valid_Q[slots] = usable_M[last_M]
        self.ages_Q[slots] = 0
        self._heads_R = (self._heads_R + count_R) % self._slots

    def rows_newest_first(self) -> list[int]:
        """Return the slots of the valid rows that know their image: newest push first, its last row first."""
        slots_Q = torch.arange(len(self))
        rings_Q, heads_R = slots_Q // self._slots, self._heads_R.cpu()
        places_Q = (slots_Q % self._slots - heads_R[rings_Q]) % self._slots  # 0 = the ring's oldest row
        known = (self.valid_Q & (self.ids_Q != NO_IMAGE)).cpu().nonzero().flatten().tolist()
        ages, places = self.ages_Q.tolist(), places_Q.tolist()
        return sorted(known, key=lambda slot: (ages[slot], -places[slot], slot))

    @property
    def slots_per_ring(self) -> int:
        """Slots of one ring; ring r holds the slots from ``r * slots_per_ring`` on."""
        return self._slots

    def to(self, device: torch.device) -> MemoryQueue:
        """Move the rows to ``device`` (in place) and return the queue."""
        if self.valid_Q.device != device:
            self.embeddings_QD, self.labels_Q = self.embeddings_QD.to(device), self.labels_Q.to(device)
            self.ids_Q, self.ages_Q = self.ids_Q.to(device), self.ages_Q.to(device)
            self.valid_Q, self._heads_R = self.valid_Q.to(device), self._heads_R.to(device)
        return self

    def clear(self) -> None:
        """Forget every key."""
        for tensor in (self.embeddings_QD, self.ages_Q, self.valid_Q, self._heads_R):
            tensor.zero_()
        self.labels_Q.fill_(NO_IMAGE)
        self.ids_Q.fill_(NO_IMAGE)

    def fill_fraction(self) -> Tensor:
        """Return the share of valid slots, scalar."""
        return self.valid_Q.float().mean()

    def mean_age(self) -> Tensor:
        """Return the mean age of the valid rows in steps, scalar; 0 where there are none."""
        return (self.ages_Q * self.valid_Q).sum() / self.valid_Q.sum().clamp(min=1)

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of all rows and ring heads, on the CPU."""
        return copy_tensors(self._tensors())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved queue of the same size.

        Raises:
            SemcError: CHECKPOINT_INVALID if it does not fit this queue.
        """
        check_tensors(state, self._tensors())
        heads_R = state["heads"]
        if bool(((heads_R < 0) | (heads_R >= self._slots)).any()):
            raise SemcError(
                ExitCode.CHECKPOINT_INVALID,
                "The saved queue points outside itself.",
                "remove the site's state",
            )
        copies = copy_tensors(state)
        self.embeddings_QD, self.labels_Q = copies["embeddings"], copies["labels"]
        self.ids_Q, self.ages_Q = copies["ids"], copies["ages"]
        self.valid_Q, self._heads_R = copies["valid"], copies["heads"]

    def _tensors(self) -> dict[str, Tensor]:
        return {
            "embeddings": self.embeddings_QD,
            "labels": self.labels_Q,
            "ids": self.ids_Q,
            "ages": self.ages_Q,
            "valid": self.valid_Q,
            "heads": self._heads_R,
        }
