"""The gate's three weightings in training and its three in evaluation."""

from __future__ import annotations

import pytest
import torch

from semc.models.gate import Gate
from tests.semc.models.studies import make_study


def build(**model: object) -> Gate:
    return Gate(16, make_study(**{f"model__{key}": value for key, value in model.items()}).model)


def test_training_noise_is_gumbel():
    """Gumbel-max: over many draws, expert n wins with probability softmax(scores)_n."""
    gate = build(gate_temperature=0.1)
    pooled_BC = torch.randn(1, 16)
    weights_SN = torch.cat([gate(pooled_BC.expand(1000, -1)).detach() for _ in range(20)])
    wins_N = torch.bincount(weights_SN.argmax(1), minlength=3) / len(weights_SN)
    torch.testing.assert_close(wins_N, gate.router(pooled_BC).softmax(1)[0].detach(), atol=0.015, rtol=0)


def test_temperature_moves_linearly_with_progress_and_is_no_tensor():
    gate = build(gate="softmax", gate_temperature=1.0, gate_temperature_end=0.5)
    for progress, temperature in ((0.0, 1.0), (0.5, 0.75), (1.0, 0.5)):
        gate.progress = progress
        assert gate.temperature == pytest.approx(temperature)
        pooled_BC = torch.randn(4, 16)
        torch.testing.assert_close(gate(pooled_BC), (gate.router(pooled_BC) / temperature).softmax(1))
    assert set(gate.state_dict()) == {"router.weight", "router.bias"}


def test_evaluation_uses_the_end_temperature_whatever_the_progress():
    gate = build(gate_temperature=1.0, gate_temperature_end=0.5).eval()
    pooled_BC = torch.randn(4, 16)
    torch.testing.assert_close(gate(pooled_BC), (gate.router(pooled_BC) / 0.5).softmax(1))


def test_hard_evaluation_picks_one_expert():
    gate = build(gate_eval="hard").eval()
    pooled_BC = torch.randn(9, 16)
    weights_BN = gate(pooled_BC)
    assert torch.equal(weights_BN.sum(1), torch.ones(9))
    assert torch.equal(weights_BN.argmax(1), gate.router(pooled_BC).argmax(1))


def test_sampled_mean_is_the_expectation_over_noise():
    """With many draws it meets the mean of freshly drawn noisy weights, and it draws nothing itself."""
    gate = build(gate_eval="sampled_mean", gate_eval_draws=256, gate_temperature_end=1.0)
    pooled_BC = torch.randn(1, 16)
    noisy_BN = torch.stack([gate(pooled_BC) for _ in range(4000)]).mean(0)
    before = torch.get_rng_state()
    torch.testing.assert_close(gate.eval()(pooled_BC), noisy_BN, atol=0.05, rtol=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("model", [{"gate": "mean"}, {"experts": 1}])
def test_without_a_router_weights_are_equal(model):
    gate = build(**model)
    experts = model.get("experts", 3)
    assert list(gate.parameters()) == []
    torch.testing.assert_close(gate(torch.randn(5, 16)), torch.full((5, experts), 1 / experts))


def test_frozen_router_keeps_its_gradient_free_weights():
    gate = build(gate_trained=False)
    assert not any(parameter.requires_grad for parameter in gate.parameters())
    assert set(gate.state_dict()) == {"router.weight", "router.bias"}
