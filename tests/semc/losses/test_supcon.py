"""Equation 13 against a slow loop and against pytorch-metric-learning."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import SupConLoss
from pytorch_metric_learning.utils.loss_and_miner_utils import get_all_pairs_indices

from semc.losses import ContrastivePool, supcon_loss
from tests.semc.losses.oracles import slow_supcon
from tests.semc.losses.pools import random_pool


@settings(max_examples=40, deadline=None)
@given(
    experts=st.integers(1, 3),
    images=st.integers(1, 5),
    queue=st.integers(0, 9),
    classes=st.integers(1, 4),
    first=st.booleans(),
    temperature=st.sampled_from([0.05, 0.2, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_equals_the_slow_loop(
    experts: int, images: int, queue: int, classes: int, first: bool, temperature: float, seed: int
) -> None:
    pool, leaf = random_pool(experts=experts, images=images, queue=queue, classes=classes, seed=seed)
    anchors = images if first else experts * images
    fast = supcon_loss(pool.cosines(anchors), pool, temperature)
    slow = slow_supcon(pool, anchors, temperature)
    assert fast.active_R.tolist() == [value is not None for value in slow]
    expected = torch.tensor([value or 0.0 for value in slow], dtype=torch.float64)
    torch.testing.assert_close(fast.loss_R, expected, rtol=1e-12, atol=1e-12)
    assert bool((fast.shifted >= -1e-12).all())
    fast.loss_R.sum().backward()
    assert bool(torch.isfinite(leaf.grad).all())  # type: ignore[arg-type]


def test_equals_pytorch_metric_learning_on_a_batch() -> None:
    pool, leaf = random_pool(experts=3, images=8, queue=0, classes=3, seed=1)
    ours = supcon_loss(pool.cosines(24), pool, 0.2)
    (our_gradient,) = torch.autograd.grad(ours.loss_R.mean(), leaf, retain_graph=True)
    theirs = SupConLoss(temperature=0.2)(pool.embeddings_PD, pool.labels_P)
    (their_gradient,) = torch.autograd.grad(theirs, leaf)
    torch.testing.assert_close(ours.loss_R.mean(), theirs, rtol=1e-12, atol=0)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("anchors", [6, 18])
def test_equals_pytorch_metric_learning_with_a_queue(anchors: int) -> None:
    pool, leaf = random_pool(experts=3, images=6, queue=20, classes=3, seed=2)
    ours = supcon_loss(pool.cosines(anchors), pool, 0.2)
    labels = pool.labels_P[:anchors]
    a1, p, a2, n = get_all_pairs_indices(labels, pool.labels_P)
    not_self = a1 != p
    theirs = SupConLoss(temperature=0.2)(
        pool.embeddings_PD[:anchors],
        labels,
        indices_tuple=(a1[not_self], p[not_self], a2, n),
        ref_emb=pool.embeddings_PD,
        ref_labels=pool.labels_P,
    )
    (our_gradient,) = torch.autograd.grad(ours.loss_R.mean(), leaf, retain_graph=True)
    (their_gradient,) = torch.autograd.grad(theirs, leaf)
    torch.testing.assert_close(ours.loss_R.mean(), theirs, rtol=1e-12, atol=0)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-10, atol=1e-14)


def test_an_all_invalid_queue_is_bit_for_bit_no_queue() -> None:
    generator = torch.Generator().manual_seed(3)
    embeddings = torch.nn.functional.normalize(torch.randn(3, 5, 16, generator=generator), dim=2)
    labels, ids = torch.randint(3, (5,), generator=generator), torch.arange(5)
    bare = ContrastivePool.of_batch(embeddings, labels, ids)
    queued = bare.with_queue(
        torch.randn(2048, 16),
        torch.randint(3, (2048,)),
        torch.arange(2048),
        torch.zeros(2048, dtype=torch.bool),
    )
    assert torch.equal(
        supcon_loss(bare.cosines(15), bare, 0.2).loss_R, supcon_loss(queued.cosines(15), queued, 0.2).loss_R
    )


def test_invalid_rows_do_not_count() -> None:
    pool, _ = random_pool(experts=2, images=4, queue=0, classes=2, seed=4)
    rows = torch.nn.functional.normalize(torch.randn(6, 8, dtype=torch.float64), dim=1)
    labels, ids = torch.tensor([0, 1, 0, 1, 0, 1]), torch.arange(6)
    valid = torch.tensor([True, False, True, True, False, False])
    some = pool.with_queue(rows, labels, ids, valid)
    only = pool.with_queue(rows[valid], labels[valid], ids[valid], torch.ones(3, dtype=torch.bool))
    poisoned = pool.with_queue(torch.where(valid[:, None], rows, torch.nan), labels, ids, valid)
    for other in (only, poisoned):
        assert torch.equal(
            supcon_loss(some.cosines(8), some, 0.2).loss_R, supcon_loss(other.cosines(8), other, 0.2).loss_R
        )


def test_anchors_without_positives_are_skipped_and_carry_no_gradient() -> None:
    leaf = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    pool = ContrastivePool.of_batch(
        torch.nn.functional.normalize(leaf, dim=2), torch.tensor([0, 0, 1]), torch.arange(3)
    )
    loss = supcon_loss(pool.cosines(3), pool, 0.2)
    assert loss.active_R.tolist() == [True, True, False]
    assert loss.loss_R[2] == 0
    assert loss.shifted[2] == 0
    (gradient,) = torch.autograd.grad(loss.loss_R[2], leaf)
    assert bool((gradient == 0).all())


def test_a_lone_image_has_no_loss_and_no_nan() -> None:
    leaf = torch.randn(1, 1, 4, requires_grad=True)
    pool = ContrastivePool.of_batch(leaf / leaf.norm(), torch.tensor([0]), torch.tensor([7]))
    loss = supcon_loss(pool.cosines(1), pool, 0.2)
    loss.loss_R.sum().backward()
    assert loss.loss_R.tolist() == [0.0]
    assert leaf.grad is not None
    assert bool((leaf.grad == 0).all())


def test_the_floor_is_reached_by_perfectly_clustered_classes() -> None:
    """Opposite classes at tau = 0.02: the loss is log|P| up to exp(-100)."""
    labels = torch.tensor([0] * 5 + [1] * 3)
    embeddings = torch.where(labels[:, None] == 0, 1.0, -1.0).to(torch.float64)[None]
    pool = ContrastivePool.of_batch(embeddings, labels, torch.arange(8))
    loss = supcon_loss(pool.cosines(8), pool, 0.02)
    expected = torch.tensor([math.log(4)] * 5 + [math.log(2)] * 3, dtype=torch.float64)
    torch.testing.assert_close(loss.loss_R, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(loss.shifted, torch.zeros(8, dtype=torch.float64), rtol=0, atol=1e-12)


def test_shifting_changes_no_encoder_gradient() -> None:
    pool, leaf = random_pool(experts=3, images=4, queue=7, classes=2, seed=5)
    loss = supcon_loss(pool.cosines(12), pool, 0.2)
    (plain,) = torch.autograd.grad(loss.loss_R.sum(), leaf, retain_graph=True)
    (shifted,) = torch.autograd.grad(loss.shifted.sum(), leaf)
    assert torch.equal(plain, shifted)


def test_a_one_class_batch_is_finite() -> None:
    pool, leaf = random_pool(experts=2, images=4, queue=3, classes=1, seed=6)
    loss = supcon_loss(pool.cosines(8), pool, 0.2)
    assert bool(loss.active_R.all())
    loss.loss_R.sum().backward()
    assert bool(torch.isfinite(leaf.grad).all())  # type: ignore[arg-type]
