"""What leaves and what stays: by module type, whole, disjoint, and local bits never change."""

import pytest
import torch
from torch import nn

from semc.config import parse_study
from semc.datasets import Batch
from semc.exit_codes import ExitCode, SemcError
from semc.models import build_model
from semc.objectives import build_objective
from semc.parameter_exchange import (
    BnMode,
    batch_norm_names,
    load_local,
    merge_shared,
    shared_schema,
    shared_shapes,
    split_parameters,
)

MODES: tuple[BnMode, ...] = ("silo", "fedbn", "average")


class Block(nn.Module):
    """Batch norms under names that betray nothing, and other layers under names that look like one."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.Conv2d(3, 4, 1)
        self.downsample = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.bn1 = nn.BatchNorm2d(4)
        self.bn10 = nn.Linear(4, 4)
        self.plain = nn.BatchNorm2d(4, affine=False)
        self.stateless = nn.BatchNorm2d(4, track_running_stats=False)
        self.sync = nn.SyncBatchNorm(4)
        self.group = nn.GroupNorm(2, 4)
        self.router = nn.Linear(4, 2).requires_grad_(False)
        self.register_buffer("scale", torch.ones(3))
        self.register_buffer("seen", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("scratch", torch.zeros(1), persistent=False)


def _batch_norm_oracle(network: nn.Module) -> tuple[set[str], set[str]]:
    """Slow: a state key belongs to the module that owns its last name."""
    affine, statistics = set(), set()
    for key in network.state_dict():
        *path, last = key.split(".")
        module = network
        for part in path:
            module = getattr(module, part)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            (affine if last in ("weight", "bias") else statistics).add(key)
    return affine, statistics


@pytest.mark.parametrize("mode", MODES)
def test_split_is_a_disjoint_cover_of_the_state(mode: BnMode):
    network = Block()
    split = split_parameters(network, mode)
    assert not split.shared.keys() & split.local.keys()
    assert split.shared.keys() | split.local.keys() == network.state_dict().keys()
    assert all(torch.equal(t, network.state_dict()[k]) for k, t in (split.shared | split.local).items())


def test_each_mode_keeps_what_its_table_says():
    network = Block()
    affine, statistics = _batch_norm_oracle(network)
    counters = {key for key in statistics if key.endswith("num_batches_tracked")} | {"seen"}
    assert len(statistics) == 4 * 3
    assert split_parameters(network, "silo").local.keys() == statistics | {"seen"}
    assert split_parameters(network, "fedbn").local.keys() == statistics | affine | {"seen"}
    assert split_parameters(network, "average").local.keys() == counters
    for mode in MODES:
        shared = split_parameters(network, mode).shared
        assert {"bn.weight", "bn10.weight", "group.weight", "router.weight", "scale"} <= shared.keys()
        assert all(tensor.is_floating_point() for tensor in shared.values())


def test_a_name_filter_would_have_shipped_local_statistics():
    """The control: the filter of the reference code, on the same network."""
    network = Block()
    by_name = {key for key in network.state_dict() if "bn" not in key}
    assert "downsample.1.running_mean" in by_name
    assert "downsample.1.running_mean" not in split_parameters(network, "fedbn").shared


@pytest.mark.parametrize("mode", MODES)
def test_renaming_modules_changes_nothing_but_names(mode: BnMode):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2))
    renamed = nn.Module()
    for new, module in zip(("bn", "edbc", "downsample"), network, strict=True):
        renamed.add_module(new, module)
    names = {"0": "bn", "1": "edbc", "2": "downsample"}
    first, second = split_parameters(network, mode), split_parameters(renamed, mode)
    for part, other in ((first.shared, second.shared), (first.local, second.local)):
        moved = {f"{names[key[0]]}{key[1:]}": tensor for key, tensor in part.items()}
        assert moved.keys() == other.keys()
        assert all(torch.equal(moved[key], other[key]) for key in moved)


def test_a_batch_norm_alone_and_one_used_twice():
    lone = nn.BatchNorm1d(3)
    assert split_parameters(lone, "fedbn").shared == {}
    twice = nn.Module()
    twice.first = twice.second = nn.BatchNorm1d(3)
    assert {key.split(".")[0] for key in split_parameters(twice, "fedbn").local} == {"first", "second"}


@pytest.mark.parametrize("mode", MODES)
def test_foreign_shared_weights_leave_local_state_bit_equal(mode: BnMode):
    network = Block()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) * 100)
    before = split_parameters(network, mode)
    foreign = {name: torch.full_like(tensor, 0.25) for name, tensor in before.shared.items()}
    merge_shared(network, foreign, mode)
    after = split_parameters(network, mode)
    assert all(torch.equal(after.local[name], before.local[name]) for name in before.local)
    assert all((tensor == 0.25).all() for tensor in after.shared.values())
    merge_shared(network, before.shared, mode)
    load_local(network, {name: torch.zeros_like(t) for name, t in before.local.items()}, mode)
    final = split_parameters(network, mode)
    assert all(torch.equal(final.shared[name], before.shared[name]) for name in before.shared)
    assert all((tensor == 0).all() for tensor in final.local.values())


def test_parts_are_copies():
    network = nn.Linear(2, 2)
    shared = split_parameters(network, "silo").shared
    before = shared["weight"].clone()
    with torch.no_grad():
        network.weight.zero_()
    assert torch.equal(shared["weight"], before)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_weights_that_do_not_fit_change_nothing(change: str):
    network = Block()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    shared = {name: torch.full_like(t, 7.0) for name, t in split_parameters(network, "silo").shared.items()}
    if change == "missing":
        del shared["bn.weight"]
    elif change == "unknown":
        shared["bn1.running_mean"] = torch.zeros(4)
    else:
        shared["router.bias"] = torch.zeros(3)
    with pytest.raises(SemcError) as caught:
        merge_shared(network, shared, "silo")
    assert caught.value.code is ExitCode.STUDY_MISMATCH
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_schema_is_of_names_shapes_and_mode_not_of_values():
    network = Block()
    schema = shared_schema(network, "silo")
    with torch.no_grad():
        network.bn.weight.add_(1)
    assert shared_schema(network, "silo") == schema
    assert shared_schema(network, "fedbn") != schema
    network.bn10 = nn.Linear(4, 5)
    assert shared_schema(network, "silo") != schema
    assert shared_shapes(network, "silo")["bn10.weight"] == (5, 4)


def test_server_optimisers_are_told_every_shared_batch_norm_key():
    network = Block()
    affine, statistics = _batch_norm_oracle(network)
    assert batch_norm_names(network, "silo") == affine
    assert batch_norm_names(network, "fedbn") == frozenset()
    running = {key for key in statistics if not key.endswith("num_batches_tracked")}
    assert batch_norm_names(network, "average") == affine | running


SEMC_STUDY = """
name: split
data: {classes: [a, b, c], image_size: 32}
model: {backbone: resnet18, samc_expansion: 1, embedding_dim: 8}
objective: {name: semc}
training: {batch_size: 4, local_steps: 2}
federation: {sites: [one]}
"""


@pytest.mark.parametrize("mode", MODES)
def test_semc_keeps_batch_norm_and_queue_through_a_round_of_foreign_weights(mode: BnMode):
    study = parse_study(SEMC_STUDY, {"federation.bn": mode, "objective.queue_on_update": "keep"})
    network, objective = build_model(study), build_objective(study, [4, 4, 4], 12)
    generator = torch.Generator().manual_seed(0)
    batch = Batch(
        torch.randn(4, 3, 32, 32, generator=generator),
        torch.tensor([0, 1, 2, 0]),
        torch.arange(4),
        torch.arange(4),
    )
    objective.step(network, batch, 0.0)
    objective.after_step(network)
    queue = objective.state_dict()
    assert any(tensor.is_floating_point() and tensor.any() for tensor in queue.values())
    before = split_parameters(network, mode)
    assert not before.shared.keys() & before.local.keys()
    assert before.shared.keys() | before.local.keys() == network.state_dict().keys()
    affine, statistics = _batch_norm_oracle(network)
    assert (statistics <= before.local.keys()) is (mode != "average")
    assert (affine <= before.local.keys()) is (mode == "fedbn")
    foreign = {name: torch.full_like(tensor, 0.125) for name, tensor in before.shared.items()}
    merge_shared(network, foreign, mode)
    objective.new_global_weights(network)
    after = split_parameters(network, mode)
    assert all(torch.equal(after.local[name], before.local[name]) for name in before.local)
    assert all(torch.equal(after.shared[name], foreign[name]) for name in foreign)
    assert objective.state_dict().keys() == queue.keys()
    assert all(torch.equal(tensor, queue[name]) for name, tensor in objective.state_dict().items())


def test_the_reference_network_has_95_batch_norms_found_by_type():
    study = parse_study(
        SEMC_STUDY,
        {
            "preset": "reference",
            "model": {"backbone": "resnet50", "samc_expansion": 6},
            "data.normalisation": "none",
        },
    )
    with torch.device("meta"):
        network = build_model(study)
    affine = batch_norm_names(network, "silo")
    assert len(affine) == 2 * 95
    assert sum(network.get_parameter(name).numel() for name in affine) == 2 * 120_128
