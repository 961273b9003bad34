"""Squared coefficient of variation of the experts' importance."""

from __future__ import annotations

import statistics

import pytest
import torch

from semc.losses import importance_cv_squared


def test_even_use_is_zero_and_one_expert_alone_is_n_minus_one() -> None:
    assert importance_cv_squared(torch.full((5, 3), 1 / 3)).item() == pytest.approx(0, abs=1e-12)
    assert importance_cv_squared(torch.tensor([[1.0, 0.0, 0.0]] * 4)).item() == pytest.approx(2)
    assert importance_cv_squared(torch.ones(4, 1)).item() == 0


def test_equals_the_statistics_module_and_pulls_towards_balance() -> None:
    weights = torch.rand(6, 4, dtype=torch.float64).softmax(1).requires_grad_()
    importance = weights.detach().sum(0).tolist()
    value = importance_cv_squared(weights)
    assert value.item() == pytest.approx(statistics.pvariance(importance) / statistics.fmean(importance) ** 2)
    (gradient,) = torch.autograd.grad(value, weights)
    assert gradient[0].argmax() == torch.tensor(importance).argmax()
    assert gradient[0].argmin() == torch.tensor(importance).argmin()
