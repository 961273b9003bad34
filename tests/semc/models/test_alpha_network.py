"""The alpha network: what it reads, what its gradient reaches."""

from __future__ import annotations

import pytest
import torch

from semc.models import build_model
from semc.models.alpha_network import AlphaNetwork
from tests.semc.models.studies import make_study


@pytest.mark.parametrize(("kind", "outputs"), [("learned", 1), ("uncertainty", 2)])
def test_input_is_detached(kind, outputs):
    network = AlphaNetwork(16, 8, kind)
    pooled_NBC = torch.randn(3, 4, 16, requires_grad=True)
    embeddings_NBD = torch.randn(3, 4, 8, requires_grad=True)
    raw_BA = network(pooled_NBC, embeddings_NBD)
    assert raw_BA.shape == (4, outputs)
    raw_BA.sum().backward()
    assert pooled_NBC.grad is None
    assert embeddings_NBD.grad is None
    assert all(parameter.grad is not None for parameter in network.parameters())
    torch.testing.assert_close(raw_BA, network.layers(pooled_NBC.mean(0)))


@pytest.mark.parametrize(("num_experts", "read"), [(4, 2), (3, 2), (2, 1), (1, 0)])
def test_reference_is_frozen_and_its_gradient_leaks_into_the_third_expert(num_experts, read):
    network = AlphaNetwork(16, 8, "reference")
    embeddings_NBD = torch.randn(num_experts, 4, 8, requires_grad=True)
    network(torch.randn(num_experts, 4, 16), embeddings_NBD).sum().backward()
    reached = [bool(gradient.abs().sum() > 0) for gradient in embeddings_NBD.grad]
    assert reached == [n == read for n in range(num_experts)]
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("alpha", "outputs"),
    [("learned", 1), ("uncertainty", 2), ("reference", 1), ("fixed", None), ("prior", None)],
)
def test_built_only_where_alpha_is_a_network(alpha, outputs):
    output = build_model(make_study(objective__alpha=alpha))(torch.rand(2, 3, 32, 32))
    assert (output.alpha_raw_BA is None) == (outputs is None)
    if outputs is not None:
        assert output.alpha_raw_BA.shape == (2, outputs)
