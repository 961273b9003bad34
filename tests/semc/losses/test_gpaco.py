"""GPaCo against a slow loop; its floor; absent classes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semc.losses import ContrastivePool, gpaco_loss, logit_adjustment
from tests.semc.losses.oracles import slow_gpaco
from tests.semc.losses.pools import random_pool

SETTINGS = {"temperature": 0.2, "alpha": 0.05, "beta": 1.0, "smoothing": 0.1}


@settings(max_examples=30, deadline=None)
@given(
    experts=st.integers(1, 3),
    images=st.integers(1, 4),
    queue=st.integers(0, 8),
    adjusted=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 10_000),
)
def test_equals_the_slow_loop(
    experts: int, images: int, queue: int, adjusted: bool, smoothing: float, seed: int
) -> None:
    pool, _ = random_pool(experts=experts, images=images, queue=queue, classes=3, seed=seed)
    anchors = experts * images
    logits = torch.randn(anchors, 4, dtype=torch.float64)
    adjustment = logit_adjustment(torch.tensor([5, 2, 9, 0]), 1.0) if adjusted else None
    values = {**SETTINGS, "smoothing": smoothing}
    fast = gpaco_loss(pool.cosines(anchors), logits, pool, adjustment_K=adjustment, **values)
    offsets = [0.0] * 4 if adjustment is None else adjustment.tolist()
    losses, floors = slow_gpaco(pool, logits.tolist(), offsets, values)
    torch.testing.assert_close(fast.loss_R, torch.tensor(losses, dtype=torch.float64), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(
        fast.floor_R, torch.tensor(floors, dtype=torch.float64), rtol=1e-11, atol=1e-11
    )
    assert bool((fast.shifted >= -1e-9).all())
    assert bool(fast.active_R.all())


def test_an_absent_class_gets_no_gradient_and_makes_no_nan() -> None:
    pool, leaf = random_pool(experts=2, images=4, queue=6, classes=2, seed=1)
    logits = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    adjustment = logit_adjustment(torch.tensor([4, 6, 0]), 1.0)
    loss = gpaco_loss(pool.cosines(8), logits, pool, adjustment_K=adjustment, **SETTINGS)
    loss.loss_R.sum().backward()
    assert logits.grad is not None
    assert leaf.grad is not None
    assert bool((logits.grad[:, 2] == 0).all())
    assert bool((logits.grad[:, :2] != 0).all())
    assert bool(torch.isfinite(leaf.grad).all())


@pytest.mark.parametrize(("positives", "share"), [(293, 0.06), (1024, 0.02)])
def test_the_class_term_is_a_small_share_of_the_target(positives: int, share: float) -> None:
    """Method 4.1: 1 / (1 + 0.05 |P|) of the weight lies on the class scores."""
    pool = ContrastivePool.of_batch(torch.ones(1, 1, 2) / math.sqrt(2), torch.tensor([0]), torch.tensor([0]))
    rows = torch.ones(positives, 2) / math.sqrt(2)
    zeros = torch.zeros(positives, dtype=torch.long)
    pool = pool.with_queue(rows, zeros, zeros, torch.ones(positives, dtype=torch.bool))
    logits = torch.zeros(1, 7, requires_grad=True)
    loss = gpaco_loss(pool.cosines(1), logits, pool, **{**SETTINGS, "smoothing": 0.0}).loss_R.sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    softmax = torch.cat([torch.zeros(7), torch.full((positives,), 1 / 0.2)]).softmax(0)[0]
    assert softmax.item() - gradient[0, 0].item() == pytest.approx(1 / (1 + 0.05 * positives), rel=1e-4)
    assert 1 / (1 + 0.05 * positives) == pytest.approx(share, abs=0.005)
