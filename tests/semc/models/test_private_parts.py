"""What a private study adds to the network and what it trains; all else as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from semc.models import PooledFeatures, SEMCNet, build_model
from tests.semc.models.studies import make_study

PARTS = {
    "heads": {"classifiers", "gate"},
    "heads+projection": {"classifiers", "gate", "projection", "prototypes_KD"},
    "adapters": {"classifiers", "gate", "projection", "prototypes_KD", "adapters"},
    "all": {
        "backbone",
        "experts",
        "aces",
        "samc",
        "classifiers",
        "gate",
        "projection",
        "prototypes_KD",
    },
}


def private(trainable: str, **changes: Any) -> SEMCNet:
    study = make_study(
        **{
            "privacy.mode": "patient_dp",
            "privacy.noise_multiplier": 1.0,
            "privacy.trainable": trainable,
            "pretraining.steps": 1,
        },
        **changes,
    )
    network = build_model(study)
    assert isinstance(network, SEMCNet)
    return network


@pytest.mark.parametrize("trainable", PARTS)
def test_exactly_the_named_parts_are_trained(trainable: str) -> None:
    names = {name.split(".")[0] for name, p in private(trainable).named_parameters() if p.requires_grad}
    assert names == PARTS[trainable]


def test_parts_that_are_off_leave_no_parameters() -> None:
    names = {name.split(".")[0] for name in private("heads").state_dict()}
    assert names.isdisjoint({"projection", "prototypes_KD", "adapters", "alpha_network"})
    assert "adapters" not in {name.split(".")[0] for name in private("all").state_dict()}


@pytest.mark.parametrize("trainable", PARTS)
def test_the_weights_are_those_of_the_study_without_privacy(trainable: str) -> None:
    """A trunk of the same seed is the same trunk; the new parts are drawn last."""
    before = build_model(
        make_study(objective__alpha="fixed", objective__mc=trainable != "heads")
    ).state_dict()
    after = private(trainable).state_dict()
    assert before.keys() <= after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_adapter_starts_as_the_identity_and_learns() -> None:
    images = torch.randn(2, 3, 32, 32)
    with_adapters, without = private("adapters").eval(), private("heads+projection").eval()
    assert torch.equal(with_adapters(images).logits_BK, without(images).logits_BK)
    with_adapters(images).logits_BK.sum().backward()
    assert with_adapters.adapters is not None
    assert all(adapter.up.weight.grad.abs().sum() > 0 for adapter in with_adapters.adapters)


def test_adapters_are_each_experts_own() -> None:
    network = private("adapters").eval()
    images = torch.randn(2, 3, 32, 32)
    before = network(images).expert_logits_NBK
    assert network.adapters is not None
    nn.init.normal_(network.adapters[1].up.weight)
    moved = (network(images).expert_logits_NBK - before).abs().amax(dim=(1, 2)) > 0
    assert moved.tolist() == [False, True, False]


def test_prototypes_travel_with_the_output() -> None:
    network = private("heads+projection")
    output = network.eval()(torch.randn(2, 3, 32, 32))
    assert output.prototypes_KD is network.prototypes_KD
    assert output.prototypes_KD is not None
    assert output.prototypes_KD.shape == (7, 128)
    assert private("heads").eval()(torch.randn(2, 3, 32, 32)).prototypes_KD is None


@pytest.mark.parametrize("gate_input", ["deep_mean", "fused_mean"])
def test_the_forward_is_pooling_and_classifying(gate_input: str) -> None:
    network = private("heads", model__gate_input=gate_input).eval()
    images = torch.randn(3, 3, 32, 32)
    whole, features = network(images), network.pooled(images)
    parts = network.classify(features)
    assert torch.equal(whole.logits_BK, parts.logits_BK)
    assert torch.equal(whole.gate_weights_BN, parts.gate_weights_BN)
    rejoined = network.classify(PooledFeatures.joined(features.by_image()))
    torch.testing.assert_close(whole.logits_BK, rejoined.logits_BK, rtol=1e-5, atol=1e-6)
