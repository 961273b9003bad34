"""Random pools in float64 for the oracle tests."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from semc.losses import ContrastivePool


def random_pool(
    *,
    experts: int,
    images: int,
    queue: int,
    classes: int,
    dim: int = 8,
    seed: int = 0,
    num_ids: int | None = None,
) -> tuple[ContrastivePool, Tensor]:
    """Return a pool of unit rows (some queue ids are those of batch images) and its batch rows' leaf."""
    generator = torch.Generator().manual_seed(seed)
    leaf_NBD = torch.randn(experts, images, dim, generator=generator, dtype=torch.float64, requires_grad=True)
    labels_B = torch.randint(classes, (images,), generator=generator)
    ids_B = torch.arange(images)
    pool = ContrastivePool.of_batch(functional.normalize(leaf_NBD, dim=2), labels_B, ids_B)
    rows = functional.normalize(torch.randn(queue, dim, generator=generator, dtype=torch.float64), dim=1)
    labels_Q = torch.randint(classes, (queue,), generator=generator)
    ids_Q = torch.randint(num_ids or 2 * images, (queue,), generator=generator)
    return pool.with_queue(rows, labels_Q, ids_Q, torch.ones(queue, dtype=torch.bool)), leaf_NBD
