"""The classification losses against torch's own and against hand-made closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from semc.exit_codes import ExitCode, SemcError
from semc.losses import (
    calibrated_margin,
    cross_entropy,
    inverse_frequency_cross_entropy,
    logit_adjusted_cross_entropy,
    logit_adjustment,
)

COUNTS = torch.tensor([10, 2, 0, 28])


def scores(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(12, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 3])[torch.randint(3, (12,), generator=generator)]
    return logits, labels


def test_plain_is_minus_log_softmax() -> None:
    logits, labels = scores()
    expected = [
        -(row[y] - math.log(sum(math.exp(v) for v in row)))
        for row, y in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        cross_entropy(logits, labels).detach(), torch.tensor(expected, dtype=torch.float64)
    )


def test_inverse_frequency_has_torchs_weighted_mean() -> None:
    logits, labels = scores()
    weights = torch.tensor([1 / 10, 1 / 2, 0.0, 1 / 28], dtype=torch.float64)
    per_sample = inverse_frequency_cross_entropy(logits, labels, COUNTS)
    torch.testing.assert_close(per_sample.mean(), functional.cross_entropy(logits, labels, weight=weights))
    ratio = per_sample / cross_entropy(logits, labels)
    rare, frequent = ratio[labels == 1][0], ratio[labels == 3][0]
    assert (rare / frequent).item() == pytest.approx(14)


@settings(max_examples=25, deadline=None)
@given(tau=st.sampled_from([0.0, 0.5, 1.0, 2.0]), seed=st.integers(0, 1000))
def test_logit_adjustment_equals_a_softmax_over_the_classes_present(tau: float, seed: int) -> None:
    logits, labels = scores(seed)
    loss = logit_adjusted_cross_entropy(logits, labels, logit_adjustment(COUNTS, tau))
    prior = {0: 0.25, 1: 0.05, 3: 0.7}
    for row, y, value in zip(logits.tolist(), labels.tolist(), loss.tolist(), strict=True):
        mass = sum(prior[c] ** tau * math.exp(row[c]) for c in prior)
        assert value == pytest.approx(-math.log(prior[y] ** tau * math.exp(row[y]) / mass), rel=1e-5)
    loss.sum().backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())
    assert bool((logits.grad[:, 2] == 0).all())


@settings(max_examples=25, deadline=None)
@given(tau=st.sampled_from([0.0, 0.5, 1.0, 3.0]), seed=st.integers(0, 1000))
def test_fedlc_equals_a_softmax_with_margins_over_the_classes_present(tau: float, seed: int) -> None:
    logits, labels = scores(seed)
    loss = logit_adjusted_cross_entropy(logits, labels, calibrated_margin(COUNTS, tau))
    margin = {c: tau / math.sqrt(math.sqrt(n)) for c, n in ((0, 10), (1, 2), (3, 28))}
    for row, y, value in zip(logits.tolist(), labels.tolist(), loss.tolist(), strict=True):
        mass = sum(math.exp(row[c] - margin[c]) for c in margin)
        assert value == pytest.approx(-math.log(math.exp(row[y] - margin[y]) / mass), rel=1e-5)
    loss.sum().backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())
    assert bool((logits.grad[:, 2] == 0).all())


def test_fedlc_asks_a_larger_margin_of_the_rarer_class() -> None:
    at_rest = torch.zeros(2, 4)
    loss_B = logit_adjusted_cross_entropy(at_rest, torch.tensor([1, 3]), calibrated_margin(COUNTS, 1.0))
    assert loss_B[0] > loss_B[1]
    gap = loss_B[0] - loss_B[1]
    assert gap.item() == pytest.approx(2**-0.25 - 28**-0.25, abs=1e-6)


def test_plain_cross_entropy_does_push_an_absent_class_down() -> None:
    """Negative control: what the adjustment prevents."""
    logits, labels = scores()
    cross_entropy(logits, labels).sum().backward()
    assert logits.grad is not None
    assert bool((logits.grad[:, 2] > 0).all())


def test_logit_adjustment_without_absent_classes_and_even_counts_changes_nothing() -> None:
    logits, labels = scores()
    adjusted = logit_adjusted_cross_entropy(logits, labels, logit_adjustment(torch.full((4,), 9), 1.0))
    torch.testing.assert_close(adjusted, cross_entropy(logits, labels))


def test_a_label_of_an_absent_class_is_refused() -> None:
    logits, _ = scores()
    labels = torch.full((12,), 2)
    for call in (
        lambda: logit_adjusted_cross_entropy(logits, labels, logit_adjustment(COUNTS, 1.0)),
        lambda: inverse_frequency_cross_entropy(logits, labels, COUNTS),
    ):
        with pytest.raises(SemcError) as refused:
            call()
        assert refused.value.code is ExitCode.LABEL_UNKNOWN


def test_one_class_present_gives_zero_loss_and_zero_gradient() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    loss = logit_adjusted_cross_entropy(
        logits, torch.full((3,), 1), logit_adjustment(torch.tensor([0, 5, 0, 0]), 1.0)
    )
    loss.sum().backward()
    assert loss.tolist() == [0.0, 0.0, 0.0]
    assert logits.grad is not None
    assert bool((logits.grad == 0).all())
