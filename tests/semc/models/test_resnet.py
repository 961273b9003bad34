"""Backbone, experts and the plain baseline against torchvision's ResNets."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from semc.models import PlainResNet, build_model
from tests.semc.models.studies import make_study


def build(backbone: str) -> PlainResNet:
    network = build_model(make_study(objective__name="classification", model__backbone=backbone))
    assert isinstance(network, PlainResNet)
    return network


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize("training", [True, False])
def test_equal_to_torchvision(backbone, training):
    theirs = torchvision.models.get_model(backbone, weights=None, num_classes=7).double().train(training)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean), nn.init.uniform_(module.running_var, 0.5, 1.5)
    ours = build(backbone).double().train(training)
    ours.load_pretrained(theirs.state_dict(), experts=True)
    ours.classifier.load_state_dict(theirs.fc.state_dict())
    images = torch.rand(2, 3, 65, 65, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images).logits_BK, theirs(images), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50"])
def test_state_keys_and_parameters_are_torchvisions(backbone):
    with torch.device("meta"):
        theirs = torchvision.models.get_model(backbone, weights=None, num_classes=7)
        ours = build(backbone)
    expected = {key.replace("fc.", "classifier."): value.shape for key, value in theirs.state_dict().items()}
    assert {
        key.removeprefix("backbone."): value.shape for key, value in ours.state_dict().items()
    } == expected


def test_initial_spread_is_torchvisions():
    ours = build("resnet18").layer4[0].conv2.weight
    theirs = torchvision.models.resnet18(weights=None).layer4[0].conv2.weight
    assert float((ours.std() / theirs.std()).detach()) == pytest.approx(1, abs=0.02)


def test_output_has_one_expert():
    output = build("tiny")(torch.rand(4, 3, 32, 32))
    assert output.expert_logits_NBK.shape == (1, 4, 7)
    assert torch.equal(output.expert_logits_NBK[0], output.logits_BK)
    assert torch.equal(output.gate_weights_BN, torch.ones(4, 1))
    assert output.embeddings_NBD is None
    assert output.alpha_raw_BA is None


def test_every_parameter_receives_a_gradient():
    network = build("tiny")
    network(torch.rand(4, 3, 64, 64)).logits_BK.square().sum().backward()
    assert all(float(p.grad.abs().max()) > 0 for p in network.parameters())
