"""Every form of alpha against its closed form, and the gradient facts of method 4.5."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semc.config import ObjectiveConfig
from semc.exit_codes import ExitCode, SemcError
from semc.losses import ContrastiveLoss
from semc.objectives.loss_weight import PRIOR_DECAY, LossWeight

MOE = torch.tensor([1.9, 0.4, 2.5], dtype=torch.float64)


def form(alpha: str, **values: Any) -> LossWeight:
    return LossWeight(ObjectiveConfig(alpha=alpha, **values))


def mc(active: tuple[bool, ...] = (True, True, True)) -> ContrastiveLoss:
    keep = torch.tensor(active)
    loss = torch.tensor([6.1, 5.9, 7.3], dtype=torch.float64)
    floor = torch.tensor([5.5, 5.0, 5.2], dtype=torch.float64)
    return ContrastiveLoss(torch.where(keep, loss, 0.0), torch.where(keep, floor, 0.0), keep)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mix(alphas: list[float], losses: Tensor) -> float:
    pairs = zip(alphas, MOE.tolist(), losses.tolist(), strict=True)
    return sum(a * moe + (1 - a) * contrast for a, moe, contrast in pairs) / len(alphas)


def raw(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None].requires_grad_()


@pytest.mark.parametrize("alpha", [0.0, 0.01, 0.1, 0.5, 1.0])
def test_fixed(alpha: float) -> None:
    weighed = form("fixed", alpha_fixed=alpha)(MOE, mc(), None)
    assert weighed.total.item() == pytest.approx(mix([alpha] * 3, mc().loss_R))
    assert weighed.alpha_B.tolist() == [alpha] * 3


def test_learned_is_a_sigmoid_of_per_sample_losses() -> None:
    x = raw(-1.0, 0.0, 2.0)
    weighed = form("learned")(MOE, mc(), x)
    alphas = [sigmoid(-1), 0.5, sigmoid(2)]
    assert weighed.total.item() == pytest.approx(mix(alphas, mc().loss_R))
    assert weighed.alpha_B.tolist() == pytest.approx(alphas)


def test_learned_with_shift_uses_the_losses_minus_their_floor() -> None:
    weighed = form("learned", alpha_shift=True)(MOE, mc(), raw(-1.0, 0.0, 2.0))
    assert weighed.total.item() == pytest.approx(mix([sigmoid(-1), 0.5, sigmoid(2)], mc().shifted))


def test_learned_with_clamp_stays_in_its_bounds() -> None:
    weighed = form("learned", alpha_clamp=(0.05, 0.95))(MOE, mc(), raw(-50.0, 1.0, 50.0))
    assert weighed.alpha_B.tolist() == pytest.approx([0.05, sigmoid(1), 0.95])


@settings(max_examples=30, deadline=None)
@given(x=st.floats(-6, 6), moe=st.floats(0, 9), contrast=st.floats(0, 9))
def test_the_gradient_of_a_learned_alpha_is_free_of_alpha(x: float, moe: float, contrast: float) -> None:
    """dL/d alpha_b = (l_moe - l_mc) / B: the reason for the corner."""
    x_BA = raw(x, 0.0)
    one = torch.ones(2, dtype=torch.bool)
    losses = ContrastiveLoss(torch.full((2,), contrast, dtype=torch.float64), torch.zeros(2), one)
    total = form("learned")(torch.full((2,), moe, dtype=torch.float64), losses, x_BA).total
    (gradient,) = torch.autograd.grad(total, x_BA)
    sigmoid_slope = sigmoid(x) * (1 - sigmoid(x))
    assert gradient[0, 0].item() / sigmoid_slope == pytest.approx((moe - contrast) / 2, abs=1e-6)


@pytest.mark.parametrize(("losses", "start", "corner"), [((1.9, 4.5), 0.50, 1.0), ((3.0, 1.0), 0.48, 0.0)])
def test_a_learned_alpha_collapses_to_the_smaller_loss(
    losses: tuple[float, float], start: float, corner: float
) -> None:
    """Method 1.3: constant losses and Adam drive alpha into a corner; uncertainty settles inside."""
    one = torch.ones(1, dtype=torch.bool)
    contrast = ContrastiveLoss(torch.tensor([losses[1]]), torch.zeros(1), one)
    x = torch.tensor([[math.log(start / (1 - start))]], requires_grad=True)
    s = torch.zeros(1, 2, requires_grad=True)
    optimiser = torch.optim.Adam([x, s], lr=0.1)
    for _ in range(200):
        learned = form("learned")(torch.tensor([losses[0]]), contrast, x)
        settled = form("uncertainty")(torch.tensor([losses[0]]), contrast, s)
        optimiser.zero_grad()
        (learned.total + settled.total).backward()
        optimiser.step()
    assert learned.alpha_B.item() == pytest.approx(corner, abs=0.01)
    expected = (1 / losses[0]) / (1 / losses[0] + 1 / losses[1])
    assert settled.alpha_B.item() == pytest.approx(expected, abs=2e-3)


def uncertainty_raw(s: float) -> float:
    """Return the raw output that gives log scale s."""
    share = (s + 1) / 4
    return math.log(share / (1 - share)) - math.log(1 / 3)


@settings(max_examples=30, deadline=None)
@given(s_moe=st.floats(-0.9, 2.9), s_mc=st.floats(-0.9, 2.9))
def test_uncertainty_equals_its_closed_form(s_moe: float, s_mc: float) -> None:
    x = torch.tensor([[uncertainty_raw(s_moe), uncertainty_raw(s_mc)]] * 3, dtype=torch.float64)
    weighed = form("uncertainty")(MOE, mc(), x)
    expected = sum(
        math.exp(-s_moe) * moe + s_moe + math.exp(-s_mc) * contrast + s_mc
        for moe, contrast in zip(MOE.tolist(), mc().shifted.tolist(), strict=True)
    )
    assert weighed.total.item() == pytest.approx(expected / 3)
    alpha = math.exp(-s_moe) / (math.exp(-s_moe) + math.exp(-s_mc))
    assert weighed.alpha_B.tolist() == pytest.approx([alpha] * 3)


@settings(max_examples=30, deadline=None)
@given(moe=st.floats(0.4, 19), contrast=st.floats(0.4, 19))
def test_uncertainty_is_stationary_where_s_is_the_log_of_the_loss(moe: float, contrast: float) -> None:
    x = torch.tensor(
        [[uncertainty_raw(math.log(moe)), uncertainty_raw(math.log(contrast))]], dtype=torch.float64
    ).requires_grad_()
    losses = ContrastiveLoss(
        torch.tensor([contrast + 5.7], dtype=torch.float64),
        torch.tensor([5.7], dtype=torch.float64),
        torch.ones(1, dtype=torch.bool),
    )
    total = form("uncertainty")(torch.tensor([moe], dtype=torch.float64), losses, x).total
    (gradient,) = torch.autograd.grad(total, x)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-9)


def test_uncertainty_starts_at_weight_one_and_never_leaves_its_bounds() -> None:
    start = form("uncertainty")(MOE, mc(), torch.zeros(3, 2, dtype=torch.float64))
    assert start.total.item() == pytest.approx((MOE + mc().shifted).mean().item())
    assert start.alpha_B.tolist() == pytest.approx([0.5] * 3)
    for value, s in ((-1e4, -1.0), (1e4, 3.0)):
        weighed = form("uncertainty")(MOE, mc(), torch.full((3, 2), value, dtype=torch.float64))
        expected = math.exp(-s) * (MOE + mc().shifted).mean().item() + 2 * s
        assert weighed.total.item() == pytest.approx(expected)
    assert math.exp(-3) == pytest.approx(0.05, abs=1e-3)
    assert math.exp(1) == pytest.approx(2.7, abs=0.02)


def test_prior_is_a_closed_form_over_running_means_that_move_after_the_step() -> None:
    weight = form("prior", alpha_fixed=0.3, alpha_prior_eta=2.0)
    x = mc().shifted.tolist()
    moe_mean, mc_mean = MOE.mean().item(), sum(x) / 3

    def expected(moe_scale: float, mc_scale: float) -> list[float]:
        logit = math.log(0.3 / 0.7)
        return [
            sigmoid(logit + (c / mc_scale - m / moe_scale) / 2) for m, c in zip(MOE.tolist(), x, strict=True)
        ]

    first = weight(MOE, mc(), None)
    assert first.alpha_B.tolist() == pytest.approx(expected(moe_mean, mc_mean))
    assert first.total.item() == pytest.approx(mix(first.alpha_B.tolist(), mc().loss_R))
    assert weight.state_dict()["running_means"].tolist() == [0.0, 0.0]
    weight.after_step()
    assert weight.state_dict()["running_means"].tolist() == pytest.approx([moe_mean, mc_mean])

    doubled = ContrastiveLoss(mc().loss_R + mc().shifted, mc().floor_R, mc().active_R)
    weight(2 * MOE, doubled, None)
    weight.after_step()
    grown = 2 - PRIOR_DECAY
    assert weight.state_dict()["running_means"].tolist() == pytest.approx([grown * moe_mean, grown * mc_mean])

    copy = form("prior", alpha_fixed=0.3, alpha_prior_eta=2.0)
    copy.load_state_dict(weight.state_dict())
    assert torch.equal(copy(MOE, mc(), None).alpha_B, weight(MOE, mc(), None).alpha_B)


def test_prior_drops_the_means_of_a_step_that_overflowed() -> None:
    weight = form("prior")
    weight(MOE, mc(), None)
    weight.after_step()
    before = weight.state_dict()["running_means"]
    weight(MOE * torch.inf, mc(), None)
    weight.after_step()
    after = weight.state_dict()["running_means"]
    assert after[0] == before[0]
    assert bool(torch.isfinite(after).all())


def test_prior_keeps_the_contrastive_mean_of_a_batch_without_positives() -> None:
    weight = form("prior")
    weight(MOE, mc(), None)
    weight.after_step()
    before = weight.state_dict()["running_means"]
    weight(MOE, mc((False, False, False)), None)
    weight.after_step()
    assert weight.state_dict()["running_means"][1] == before[1]


def test_reference_weighs_scalar_losses_per_sample_and_lets_the_gradient_through() -> None:
    x = raw(-1.0, 0.0, 2.0)
    weighed = form("reference")(MOE, mc(), x)
    alpha = sum([sigmoid(-1), 0.5, sigmoid(2)]) / 3
    expected = alpha * MOE.mean().item() + (1 - alpha) * mc().loss_R.mean().item()
    assert weighed.total.item() == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(weighed.total, x)
    assert bool((gradient != 0).all())


@pytest.mark.parametrize("alpha", ["learned", "uncertainty", "fixed", "prior"])
def test_an_image_without_contrastive_term_trains_by_classification_alone(alpha: str) -> None:
    x = torch.full((3, 2 if alpha == "uncertainty" else 1), 0.7, dtype=torch.float64, requires_grad=True)
    weight = form(alpha)
    moe = MOE.clone().requires_grad_()
    weighed = weight(moe, mc((True, False, True)), None if alpha in ("fixed", "prior") else x)
    assert weighed.alpha_B[1].item() == 1.0
    assert weighed.alpha_B[0].item() != 1.0
    (gradient,) = torch.autograd.grad(weighed.total, moe, retain_graph=True)
    if alpha != "uncertainty":
        assert gradient[1].item() == pytest.approx(1 / 3)
    else:
        (by_s,) = torch.autograd.grad(weighed.total, x)
        assert by_s[1, 1].item() == 0.0
        assert by_s[1, 0].item() != 0.0


@pytest.mark.parametrize("alpha", ["learned", "uncertainty", "reference"])
def test_a_network_without_alpha_is_refused(alpha: str) -> None:
    with pytest.raises(ValueError, match="alpha network"):
        form(alpha)(MOE, mc(), None)


def test_state_of_another_form_is_refused() -> None:
    assert form("uncertainty").state_dict() == {}
    with pytest.raises(SemcError) as refused:
        form("uncertainty").load_state_dict(form("prior").state_dict())
    assert refused.value.code is ExitCode.CHECKPOINT_INVALID
