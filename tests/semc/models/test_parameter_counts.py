"""Exact parameter counts of ResNet-50 SEMC with seven classes; on the meta device nothing is allocated."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from semc.models import build_model
from tests.semc.models.studies import make_study


def build(preset: str = "reference", **overrides: object) -> nn.Module:
    with torch.device("meta"):
        return build_model(make_study(preset, model__backbone="resnet50", **overrides))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def count_live(network: nn.Module) -> int:
    """Parameters without router and alpha network, as the published table counts."""
    return sum(
        count(child) for name, child in network.named_children() if name not in ("gate", "alpha_network")
    )


def test_modules_of_the_reference():
    network = build()
    assert count(network.backbone) == 8_543_296
    assert [count(expert) for expert in network.experts] == [14_964_736] * 3
    assert [count(ace) for ace in network.aces] == [6_977_792, 6_842_880, 6_310_912]
    assert count(network.samc.multi_context) == 50_864_128
    assert count(network.samc.channel_attention) == 524_288
    assert count(network.samc.spatial_attention) == 98
    assert count(network.projection) == 1_115_520
    assert count(network.classifiers) == 43_029
    assert count(network.gate) == 6_147
    assert count(network.alpha_network) == 8_321
    assert count_live(network) == 126_116_151


@pytest.mark.parametrize(
    ("preset", "overrides", "expected"),
    [
        ("reference", {"model__samc_expansion": 4}, 109_162_807),
        ("reference", {"model__samc_expansion": 2}, 92_209_463),
        ("reference", {"model__samc_expansion": 1}, 83_732_791),
        ("paper", {}, 176_447_799),
        ("robust", {}, 126_323_511),
        ("reference", {"model__ace": False}, 105_984_567),
        ("reference", {"model__samc": False}, 74_727_637),
        ("reference", {"objective__mc": False}, 125_000_631),
        ("reference", {"model__ace": False, "model__samc": False, "objective__mc": False}, 53_480_533),
        ("reference", {"objective__queue": False}, 126_116_151),
        ("reference", {"model__experts": 1}, 83_004_201),
        ("reference", {"model__experts": 2}, 104_826_160),
        ("reference", {"model__experts": 4}, 141_095_230),
        ("reference", {"model__gate": "mean"}, 126_116_151),
    ],
)
def test_ablations(preset, overrides, expected):
    assert count_live(build(preset, **overrides)) == expected


def test_plain_resnet_50():
    assert count(build(objective__name="classification")) == 23_522_375


def test_batch_norms_are_found_by_type():
    network = build()
    norms = [(name, m) for name, m in network.named_modules() if isinstance(m, _BatchNorm)]
    assert len(norms) == 95
    assert sum(module.num_features for _, module in norms) == 120_128
    # A rule by name would miss those whose key says nothing of batch norm.
    missed = [module for name, module in norms if "bn" not in name]
    assert len(missed) == 28
    assert sum(module.num_features for module in missed) == 78_976


def test_per_expert_batch_norm_adds_its_own_and_nothing_else():
    shared, separate = build("robust", model__samc_bn="shared"), build("robust")
    assert count(separate) - count(shared) == 2 * 2 * (4 * 12_288 + 2_048 + 512 + 128)
    assert sum(isinstance(m, _BatchNorm) for m in separate.modules()) == 95 + 2 * 7


def test_only_the_reference_freezes_router_and_alpha_network():
    frozen = {name.split(".")[0] for name, p in build().named_parameters() if not p.requires_grad}
    assert frozen == {"gate", "alpha_network"}
    assert all(p.requires_grad for p in build("robust").parameters())
    assert all(p.requires_grad for p in build("paper").parameters())
