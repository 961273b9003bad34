"""Layout of the pool (eq. 11-12)."""

from __future__ import annotations

import torch

from semc.losses import ContrastivePool


def test_rows_are_expert_major_with_labels_and_ids_alike_then_the_valid_queue() -> None:
    embeddings = torch.arange(6.0).view(3, 2, 1)  # 3 experts, 2 images
    pool = ContrastivePool.of_batch(embeddings, torch.tensor([4, 5]), torch.tensor([70, 80]))
    pool = pool.with_queue(
        torch.tensor([[10.0], [11.0], [12.0]]),
        torch.tensor([1, 2, 3]),
        torch.tensor([80, 90, 95]),
        torch.tensor([True, False, True]),
    )
    assert pool.embeddings_PD.flatten().tolist() == [0, 1, 2, 3, 4, 5, 10, 12]
    assert pool.labels_P.tolist() == [4, 5, 4, 5, 4, 5, 1, 3]
    assert pool.ids_P.tolist() == [70, 80, 70, 80, 70, 80, 80, 95]
    assert pool.num_batch_rows == 6


def test_masks_are_by_position_label_and_image() -> None:
    pool = ContrastivePool.of_batch(torch.ones(2, 2, 3), torch.tensor([0, 0]), torch.tensor([5, 6]))
    assert pool.others(2).tolist() == [[False, True, True, True], [True, False, True, True]]
    assert bool(pool.same_label(2).all())
    assert pool.same_image(2).tolist() == [[True, False, True, False], [False, True, False, True]]
    assert bool((pool.cosines(2) == 3).all())


def test_the_queue_carries_no_gradient_and_takes_the_batchs_precision() -> None:
    leaf = torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True)
    pool = ContrastivePool.of_batch(leaf, torch.tensor([0, 1]), torch.arange(2))
    rows = torch.randn(4, 3)
    both = pool.with_queue(
        rows, torch.zeros(4, dtype=torch.long), torch.arange(4), torch.ones(4, dtype=torch.bool)
    )
    assert both.embeddings_PD.dtype == torch.float64
    (gradient,) = torch.autograd.grad(both.embeddings_PD.sum(), leaf)
    assert bool((gradient == 1).all())
    assert not rows.requires_grad
