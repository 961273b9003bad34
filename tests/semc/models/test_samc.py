"""SAMC on all experts at once is exactly one call per expert; pooling their batch statistics is not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from semc.models.channel_maps import ChannelMaps
from semc.models.expert_batch_norm import ExpertBatchNorm
from semc.models.samc import SAMC
from tests.semc.models.studies import make_study

CHANNELS = 32


@pytest.mark.parametrize("bn", ["shared", "per_expert"])
@pytest.mark.parametrize("fuse", ["sum", "concat"])
@pytest.mark.parametrize("size", [2, 5])
def test_stacked_equals_three_calls(bn, fuse, size):
    config = make_study(model__samc_bn=bn, model__samc_fuse=fuse).model
    stacked = SAMC(CHANNELS, 3, config).double()
    singles = [single_expert(stacked, n, config) for n in range(3)]
    maps_N = list(torch.randn(3, 4, CHANNELS, size, size, dtype=torch.float64))
    together = stacked(ChannelMaps.stack(maps_N))
    for n, (single, maps_BCHW) in enumerate(zip(singles, maps_N, strict=True)):
        alone = single(ChannelMaps.stack([maps_BCHW]))
        torch.testing.assert_close(together.expert(n).values_CMP, alone.values_CMP, rtol=1e-13, atol=1e-13)


def test_the_order_of_experts_does_not_matter():
    config = make_study(model__samc_bn="shared").model
    samc = SAMC(CHANNELS, 3, config).double()
    maps_N = list(torch.randn(3, 4, CHANNELS, 2, 2, dtype=torch.float64))
    forward, backward = samc(ChannelMaps.stack(maps_N)), samc(ChannelMaps.stack(maps_N[::-1]))
    torch.testing.assert_close(forward.expert(0).values_CMP, backward.expert(2).values_CMP)


def test_pooled_batch_norm_would_be_another_network():
    """The control: one batch norm over all experts' maps differs by far more than rounding."""
    values_CL = torch.randn(8, 3 * 10, dtype=torch.float64) * torch.tensor([1.0, 2.0, 3.0]).repeat_interleave(
        10
    )
    per_chunk = ExpertBatchNorm(8, 3, per_expert=False).double()(values_CL, 1).detach()
    pooled = ExpertBatchNorm(8, 1, per_expert=False).double()(values_CL, 1).detach()
    assert float((per_chunk - pooled).abs().max()) > 0.1


@pytest.mark.parametrize("per_expert", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_equal_torch(per_expert, momentum):
    ours = ExpertBatchNorm(6, 3, per_expert=per_expert).double()
    theirs = nn.ModuleList(nn.BatchNorm1d(6) for _ in ours.norms).double()
    for norm in [*ours.norms, *theirs]:
        norm.momentum = momentum
    for _ in range(3):
        values_CL = torch.randn(6, 3 * 8, dtype=torch.float64) + 5
        chunks = [
            theirs[n % len(theirs)](chunk_CL.T).T for n, chunk_CL in enumerate(values_CL.chunk(3, dim=1))
        ]
        torch.testing.assert_close(ours(values_CL, 1), torch.cat(chunks, dim=1), rtol=1e-12, atol=1e-12)
    for mine, other in zip(ours.norms, theirs, strict=True):
        assert int(mine.num_batches_tracked) == int(other.num_batches_tracked) == (3 if per_expert else 9)
        torch.testing.assert_close(mine.running_mean, other.running_mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(mine.running_var, other.running_var, rtol=1e-12, atol=1e-12)
    evaluated = ours.eval()(values_CL, 1)
    chunks = [theirs.eval()[n % len(theirs)](c.T).T for n, c in enumerate(values_CL.chunk(3, dim=1))]
    torch.testing.assert_close(evaluated, torch.cat(chunks, dim=1), rtol=1e-12, atol=1e-12)


def single_expert(stacked: SAMC, expert: int, config) -> SAMC:
    """Return expert n's share of a stacked SAMC as a module of its own."""
    single = SAMC(CHANNELS, 1, config).double()
    state = {}
    for key, value in copy.deepcopy(stacked.state_dict()).items():
        head, found, tail = key.partition(".norms.")
        number, _, name = tail.partition(".")
        if not found:
            state[key] = value
        elif number == (str(expert) if config.samc_bn == "per_expert" else "0"):
            state[f"{head}.norms.0.{name}"] = value
    single.load_state_dict(state)
    return single
