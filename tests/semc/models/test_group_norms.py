"""`model.norm: group`: no batch norm is left, no image touches another, and no layer is dead."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from semc.models import build_model
from semc.models.expert_batch_norm import ExpertBatchNorm
from semc.models.expert_group_norm import ExpertGroupNorm, num_groups
from semc.models.projection import Projection
from semc.training import build_optimizer
from tests.semc.models.studies import make_study

NORMS = (nn.GroupNorm, ExpertGroupNorm)


def network_of(**changes: Any) -> nn.Module:
    return build_model(make_study(**{"model__norm": "group", **changes}))


@pytest.mark.parametrize("channels", [1, 4, 6, 8, 12, 16, 30, 32, 64, 96, 128, 512, 2048, 12288])
def test_groups_divide_the_channels_and_hold_several(channels: int) -> None:
    groups = num_groups(channels)
    assert channels % groups == 0
    assert groups <= 32
    assert channels // groups >= min(8, channels)


@pytest.mark.parametrize("name", ["semc", "classification"])
@pytest.mark.parametrize("samc_bn", ["shared", "per_expert"])
def test_no_batch_norm_is_left(name: str, samc_bn: str) -> None:
    changes = {"objective__name": name, "model__samc_bn": samc_bn, "model__samc_shared": samc_bn == "shared"}
    kinds = [type(m) for m in network_of(**changes).modules()]
    assert not any(issubclass(kind, (_BatchNorm, ExpertBatchNorm)) for kind in kinds)
    before = [type(m) for m in network_of(**changes, model__norm="batch").modules()]
    assert sum(issubclass(kind, _BatchNorm) for kind in before) == sum(kind is nn.GroupNorm for kind in kinds)


def test_all_other_weights_are_bit_equal() -> None:
    group, batch = network_of().state_dict(), network_of(model__norm="batch").state_dict()
    shared = group.keys() & batch.keys()
    assert len(shared) > 100
    assert all(torch.equal(group[name], batch[name]) for name in shared)


@pytest.mark.parametrize("training", [True, False])
def test_an_image_gives_the_same_whatever_is_beside_it(training: bool) -> None:
    images = torch.randn(4, 3, 32, 32)

    def difference(norm: str) -> float:
        network = network_of(model__norm=norm, model__gate="softmax").train(training)
        alone = torch.cat([network(images[:2]).logits_BK, network(images[2:]).logits_BK])
        return (alone - network(images).logits_BK).abs().max().item()

    assert difference("group") < 1e-4
    if training:
        assert difference("batch") > 1e-2  # the control


def dead_layers(network: nn.Module, images: Tensor) -> list[str]:
    """Return the norms whose output does not tell some images apart."""
    dead: list[str] = []

    def look(name: str, output: Tensor) -> None:
        if isinstance(dict(network.named_modules())[name], ExpertGroupNorm):
            values = output.view(len(output), 3, len(images), -1)  # [C, N, B, P]
            spread = values.std(dim=2).mean()
        else:
            spread = output.std(dim=0).mean()
        if not spread > 1e-3:
            dead.append(name)

    for name, module in network.named_modules():
        if isinstance(module, NORMS) and ".norms." not in name:  # those inside an ExpertGroupNorm do not run
            module.register_forward_hook(lambda _, __, output, name=name: look(name, output))
    with torch.no_grad():
        network(images)
    return dead


@pytest.mark.parametrize("backbone", ["tiny", "small", "resnet18", "resnet50"])
@pytest.mark.parametrize("size", [32, 64])
def test_no_layer_is_dead(backbone: str, size: int) -> None:
    changes = {"model__backbone": backbone, "data__image_size": size, "model__samc_expansion": 1}
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert dead_layers(network_of(**changes), images) == []


def test_one_channel_a_group_would_be_dead() -> None:
    """The control: what stock conversion does to 32 channels on a 1x1 map is a constant, and is found."""
    network = network_of(model__samc_expansion=1)
    projection = network.projection
    assert isinstance(projection, Projection)
    channels = projection.reduce.out_features
    projection.reduce_norm = ExpertGroupNorm(channels, 3, per_expert=True, groups=channels)
    # What follows a constant is one as well.
    expected = ["projection.reduce_norm", "projection.embed_norm"]
    assert dead_layers(network, torch.randn(3, 3, 32, 32)) == expected


def test_experts_norm_equals_torch_map_by_map() -> None:
    norm = ExpertGroupNorm(16, 2, per_expert=True).double()
    for one in norm.norms:
        nn.init.normal_(one.weight)
        nn.init.normal_(one.bias)
    values_CNBP = torch.randn(16, 2, 3, 5, dtype=torch.float64)
    ours = norm(values_CNBP.flatten(1), 5).view_as(values_CNBP)
    for n in range(2):
        theirs = norm.norms[n](values_CNBP[:, n].transpose(0, 1)).transpose(0, 1)
        torch.testing.assert_close(ours[:, n], theirs)


def test_the_embedding_is_normed_as_a_layer() -> None:
    projection = network_of().projection
    assert isinstance(projection, Projection)
    assert isinstance(projection.embed_norm, ExpertGroupNorm)
    values_CM = torch.randn(projection.embed.out_features, 6)
    expected = nn.functional.layer_norm(values_CM.T, (len(values_CM),)).T
    torch.testing.assert_close(projection.embed_norm(values_CM, 1), expected)


def test_weight_decay_spares_group_norms() -> None:
    network = network_of()
    groups = build_optimizer(network, make_study().training).param_groups
    undecayed = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    norms = [p for m in network.modules() if isinstance(m, nn.GroupNorm) for p in m.parameters()]
    assert norms
    assert all(id(p) in undecayed for p in norms)
