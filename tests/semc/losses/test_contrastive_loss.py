"""Reduction of anchors to images, and the sum of equation 15."""

from __future__ import annotations

import torch

from semc.losses import ContrastiveLoss


def test_an_image_gets_the_mean_over_its_active_anchors() -> None:
    anchors = ContrastiveLoss(
        loss_R=torch.tensor([1.0, 2.0, 0.0, 3.0, 0.0, 0.0]),  # experts x images = 2 x 3
        floor_R=torch.tensor([0.5, 1.0, 0.0, 1.5, 0.0, 0.0]),
        active_R=torch.tensor([True, True, False, True, False, False]),
    )
    images = anchors.per_image(3)
    assert images.loss_R.tolist() == [2.0, 2.0, 0.0]
    assert images.floor_R.tolist() == [1.0, 1.0, 0.0]
    assert images.active_R.tolist() == [True, True, False]
    assert images.mean_shifted().item() == 1.0


def test_a_weighted_sum_keeps_the_floor() -> None:
    sup = ContrastiveLoss(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0]), torch.tensor([True, False]))
    own = ContrastiveLoss(torch.tensor([4.0, 6.0]), torch.tensor([2.0, 2.0]), torch.tensor([True, True]))
    total = sup.plus(own, 0.5)
    assert total.loss_R.tolist() == [4.0, 3.0]
    assert total.floor_R.tolist() == [2.0, 1.0]
    assert total.active_R.tolist() == [True, True]


def test_no_active_row_means_zero() -> None:
    nothing = ContrastiveLoss(torch.zeros(2), torch.zeros(2), torch.zeros(2, dtype=torch.bool))
    assert nothing.mean_shifted().item() == 0.0
    assert nothing.per_image(2).loss_R.tolist() == [0.0, 0.0]
