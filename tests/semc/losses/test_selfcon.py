"""Equation 14 against slow loops: views only (k = 0) and mined neighbours (k > 0)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from semc.losses import ContrastivePool, mined_neighbours, selfcon_loss
from tests.semc.losses.oracles import slow_selfcon
from tests.semc.losses.pools import random_pool


def assert_equal(pool: ContrastivePool, anchors: int, temperature: float, k: int, threshold: float) -> None:
    fast = selfcon_loss(pool.cosines(anchors), pool, temperature, k, threshold)
    slow = slow_selfcon(pool, anchors, temperature, k, threshold)
    assert fast.active_R.tolist() == [value is not None for value in slow]
    expected = torch.tensor([value or 0.0 for value in slow], dtype=torch.float64)
    torch.testing.assert_close(fast.loss_R, expected, rtol=1e-12, atol=1e-12)
    assert bool((fast.shifted >= -1e-12).all())


@settings(max_examples=30, deadline=None)
@given(
    experts=st.integers(1, 3),
    images=st.integers(1, 5),
    queue=st.integers(0, 9),
    first=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_views_only_equals_its_definition(
    experts: int, images: int, queue: int, first: bool, seed: int
) -> None:
    pool, _ = random_pool(experts=experts, images=images, queue=queue, classes=2, seed=seed, num_ids=images)
    assert_equal(pool, images if first else experts * images, 0.2, k=0, threshold=0.8)


@settings(max_examples=60, deadline=None)
@given(
    experts=st.integers(1, 3),
    images=st.integers(1, 5),
    queue=st.integers(0, 9),
    first=st.booleans(),
    k=st.integers(1, 20),
    threshold=st.sampled_from([-1.0, 0.0, 0.3, 0.8]),
    seed=st.integers(0, 10_000),
)
def test_mined_neighbours_equal_their_definition(
    experts: int, images: int, queue: int, first: bool, k: int, threshold: float, seed: int
) -> None:
    pool, _ = random_pool(experts=experts, images=images, queue=queue, classes=2, dim=4, seed=seed)
    assert_equal(pool, images if first else experts * images, 0.2, k=k, threshold=threshold)


def test_old_keys_of_the_anchors_image_leave_the_denominator() -> None:
    pool, _ = random_pool(experts=2, images=3, queue=0, classes=2, seed=1)
    old_keys = functional.normalize(torch.randn(5, 8, dtype=torch.float64), dim=1)
    own = pool.with_queue(
        old_keys, torch.zeros(5, dtype=torch.long), torch.full((5,), 0), torch.ones(5, dtype=torch.bool)
    )
    bare = selfcon_loss(pool.cosines(6), pool, 0.2).loss_R
    queued = selfcon_loss(own.cosines(6), own, 0.2).loss_R
    image_0 = torch.tensor([True, False, False] * 2)
    torch.testing.assert_close(queued[image_0], bare[image_0], rtol=1e-14, atol=0)
    assert bool((queued[~image_0] > bare[~image_0]).all())  # to the others they are ordinary negatives


def test_a_neighbour_in_the_batch_must_be_mutual() -> None:
    """Angles 0, 10 and 15 degrees, k = 1: 10 and 15 name each other, 0 names 10 in vain."""
    angles = torch.deg2rad(torch.tensor([0.0, 10.0, 15.0], dtype=torch.float64))
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    pool = ContrastivePool.of_batch(rows[None], torch.zeros(3, dtype=torch.long), torch.arange(3))
    assert mined_neighbours(pool, 1, 0.8).tolist() == [
        [False, False, False],
        [False, False, True],
        [False, True, False],
    ]
    queued = pool.with_queue(
        rows[:1], torch.zeros(1, dtype=torch.long), torch.tensor([9]), torch.ones(1, dtype=torch.bool)
    )
    assert mined_neighbours(queued, 1, 0.8)[0].tolist() == [False, False, False, True]  # a past key need not


def test_no_label_enters() -> None:
    pool, _ = random_pool(experts=3, images=4, queue=6, classes=3, seed=2)
    relabelled = ContrastivePool(pool.embeddings_PD, pool.labels_P.flip(0), pool.ids_P, pool.num_batch_rows)
    for k in (0, 3):
        assert torch.equal(
            selfcon_loss(pool.cosines(12), pool, 0.2, k, 0.0).loss_R,
            selfcon_loss(relabelled.cosines(12), relabelled, 0.2, k, 0.0).loss_R,
        )


def test_one_expert_without_mining_has_no_self_loss() -> None:
    pool, leaf = random_pool(experts=1, images=4, queue=5, classes=2, seed=3)
    loss = selfcon_loss(pool.cosines(4), pool, 0.2)
    assert not bool(loss.active_R.any())
    loss.loss_R.sum().backward()
    assert leaf.grad is not None
    assert bool((leaf.grad == 0).all())


@pytest.mark.parametrize("k", [0, 4])
def test_an_all_invalid_queue_is_bit_for_bit_no_queue(k: int) -> None:
    pool, _ = random_pool(experts=3, images=5, queue=0, classes=3, seed=4)
    queued = pool.with_queue(
        torch.randn(64, 8), torch.randint(3, (64,)), torch.arange(64), torch.zeros(64, dtype=torch.bool)
    )
    assert torch.equal(
        selfcon_loss(pool.cosines(15), pool, 0.2, k, 0.1).loss_R,
        selfcon_loss(queued.cosines(15), queued, 0.2, k, 0.1).loss_R,
    )
