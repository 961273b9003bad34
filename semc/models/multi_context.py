"""SAMC's inverted bottleneck: three depthwise receptive fields, joined, shuffled and projected back (eq. 10).

`samc_fuse: concat` without residual is the paper's text; `sum` with residual is what the released code
computes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from semc.config import ModelConfig
from semc.models.channel_maps import ChannelMaps
from semc.models.depthwise import DepthwiseConv
from semc.models.expert_batch_norm import ExpertBatchNorm
from semc.models.layers import ChannelLinear

KERNELS = (1, 3, 5)
"""Sides of the depthwise kernels."""


class MultiContext(nn.Module):
    """Expansion, depthwise 1x1 / 3x3 / 5x5, channel shuffle, projection.

    Args:
        channels: C of input and output.
        num_experts: N chunks for batch norm.
        config: Expansion e, how branches are joined, whose batch norm.
    """

    def __init__(self, channels: int, num_experts: int, config: ModelConfig) -> None:
        super().__init__()
        expanded = channels * config.samc_expansion
        joined = expanded * (len(KERNELS) if config.samc_fuse == "concat" else 1)
        per_expert = config.samc_bn == "per_expert"

        def batch_norm(width: int) -> ExpertBatchNorm:
            return ExpertBatchNorm(width, num_experts, per_expert=per_expert)

        self.fuse = config.samc_fuse
        self.residual = config.samc_residual
        self.shuffle_groups = math.gcd(joined, channels)
        self.expand = ChannelLinear(channels, expanded, bias=False)
        self.expand_norm = batch_norm(expanded)
        self.branches = nn.ModuleList(DepthwiseConv(expanded, kernel) for kernel in KERNELS)
        self.branch_norms = nn.ModuleList(batch_norm(expanded) for _ in KERNELS)
        self.project = ChannelLinear(joined, channels, bias=False)
        self.project_norm = batch_norm(channels)

    def forward(self, attended: ChannelMaps) -> ChannelMaps:
        """Return O from X, same shape."""
        positions = attended.values_CMP.shape[2]
        expanded = attended.with_values(_relu6(self.expand_norm(self.expand(attended.flat()), positions)))
        contexts = [
            _relu6(norm(branch(expanded).flatten(1), positions))
            for branch, norm in zip(self.branches, self.branch_norms, strict=True)
        ]
        joined_CL = torch.cat(contexts) if self.fuse == "concat" else contexts[0] + contexts[1] + contexts[2]
        refined_CL = self.project_norm(self.project(_shuffle(joined_CL, self.shuffle_groups)), positions)
        if self.residual:
            refined_CL = refined_CL + attended.flat()
        return attended.with_values(refined_CL)


def _relu6(values: Tensor) -> Tensor:
    return functional.relu6(values, inplace=True)


def _shuffle(values_CL: Tensor, groups: int) -> Tensor:
    """Interleave the channels of equal groups, so that the projection's inputs mix neighbours."""
    return values_CL.view(groups, -1, values_CL.shape[1]).transpose(0, 1).flatten(0, 1)
