"""Schedules by hand, and SGD against its own definition."""

import math

import pytest
import torch
from torch import nn

from semc.config import TrainingConfig
from semc.config.presets import PRESETS
from semc.training import build_optimizer, learning_rate
from tests.semc.training.tiny import TinyNetwork


def _training(**values: object) -> TrainingConfig:
    return TrainingConfig.model_validate({"local_steps": 1, **values})


def _rates(training: TrainingConfig, total: int) -> list[float]:
    return [learning_rate(training, step, total) for step in range(total)]


def test_cosine_with_warm_up_by_hand():
    training = _training(learning_rate=0.8, schedule="cosine", warmup_fraction=0.2)
    rates = _rates(training, 10)
    assert rates[:2] == pytest.approx([0.4, 0.8])
    assert rates[2:] == pytest.approx([0.4 * (1 + math.cos(math.pi * k / 8)) for k in range(8)])
    assert rates[2] == 0.8
    assert 0 < rates[-1] < 0.05


def test_constant_keeps_the_peak_after_the_warm_up():
    assert _rates(_training(learning_rate=1.0, schedule="constant", warmup_fraction=0.5), 4) == [0.5, 1, 1, 1]
    assert _rates(_training(learning_rate=1.0, schedule="constant", warmup_fraction=0.0), 2) == [1, 1]


def test_reference_schedule_is_the_released_codes_200_epochs():
    """One step per epoch: 0 in the first, the peak in the sixth, 0 in the last twenty."""
    rates = _rates(_training(learning_rate=5e-3, schedule="reference"), 200)
    assert rates[:6] == pytest.approx([0, 1e-3, 2e-3, 3e-3, 4e-3, 5e-3])
    assert max(rates) == rates[5] == 5e-3
    assert rates[5:180] == pytest.approx([2.5e-3 * (1 + math.cos(math.pi * e / 175)) for e in range(175)])
    assert rates[180:] == [0] * 20


@pytest.mark.parametrize("steps_per_epoch", [7, 379])
def test_reference_schedule_stretches_over_any_study(steps_per_epoch: int):
    training = _training(learning_rate=5e-3, schedule="reference")
    total = 200 * steps_per_epoch
    rates = _rates(training, total)
    assert rates[::steps_per_epoch] == _rates(training, 200)
    assert rates[:steps_per_epoch] == [0] * steps_per_epoch
    assert all(rate == 0 for rate in rates[-20 * steps_per_epoch :])


@pytest.mark.parametrize("schedule", ["cosine", "reference", "constant"])
@pytest.mark.parametrize("total", [1, 2, 3, 17])
def test_short_studies_have_rates_between_zero_and_the_peak(schedule: str, total: int):
    rates = _rates(_training(learning_rate=1.0, schedule=schedule, warmup_fraction=0.5), total)
    assert all(0 <= rate <= 1 for rate in rates)


@pytest.mark.parametrize("step", [-1, 5])
def test_a_step_outside_the_study_is_refused(step: int):
    with pytest.raises(ValueError, match="outside"):
        learning_rate(_training(), step, 5)


def test_weight_decay_spares_norms_biases_and_frozen_parameters():
    network = TinyNetwork()
    decayed, undecayed = build_optimizer(network, _training(weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1
    assert undecayed["weight_decay"] == 0
    names = {parameter: name for name, parameter in network.named_parameters()}
    assert [names[p] for p in decayed["params"]] == ["conv.weight", "head.weight"]
    assert {names[p] for p in undecayed["params"]} == {"conv.bias", "norm.weight", "norm.bias", "head.bias"}


def test_weight_decay_on_all_is_what_the_published_presets_do():
    (decayed,) = build_optimizer(
        TinyNetwork(), _training(weight_decay=0.1, weight_decay_on="all")
    ).param_groups
    assert decayed["weight_decay"] == 0.1
    assert len(decayed["params"]) == 6
    choices = {
        name: PRESETS[name]["training"]["weight_decay_on"] for name in ("paper", "reference", "robust")
    }
    assert choices == {"paper": "all", "reference": "all", "robust": "weights"}


def test_a_parameter_used_twice_is_stepped_once():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[1].weight = network[0].weight
    groups = build_optimizer(network, _training()).param_groups
    assert sum(len(group["params"]) for group in groups) == 3


def test_steps_equal_the_definition_of_sgd_with_momentum():
    """v <- mu v + (g + wd w);  w <- w - lr v, written out for each parameter."""
    training = _training(learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    network = TinyNetwork()
    optimizer = build_optimizer(network, training)
    generator = torch.Generator().manual_seed(0)
    expected = {name: p.detach().clone().double() for name, p in network.named_parameters()}
    velocity = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
    for _ in range(4):
        for name, parameter in network.named_parameters():
            if not parameter.requires_grad:
                continue
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            decay = 0.01 if name in ("conv.weight", "head.weight") else 0.0
            velocity[name] = 0.9 * velocity[name] + parameter.grad + decay * expected[name]
            expected[name] = expected[name] - 0.1 * velocity[name]
        optimizer.step()
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.detach().double(), expected[name], atol=1e-6, rtol=1e-5)


def test_a_parameter_without_a_gradient_waits_and_joins_later():
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    optimizer = build_optimizer(network, _training(learning_rate=1.0, momentum=0.9, weight_decay=0.0))
    late = network[1].weight.detach().clone()
    network[0].weight.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(network[1].weight, late)
    network[1].weight.grad = torch.ones(2, 2)
    optimizer.step()
    torch.testing.assert_close(network[1].weight.detach(), late - 1)
