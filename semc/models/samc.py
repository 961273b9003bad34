"""SAMC: structure-aware multi-context refinement of each expert's fused feature (eq. 8-10)."""

from __future__ import annotations

import torch
from torch import nn

from semc.config import ModelConfig
from semc.models.attention import ChannelAttention, SpatialAttention
from semc.models.channel_maps import ChannelMaps
from semc.models.multi_context import MultiContext


class SAMC(nn.Module):
    """Channel attention, spatial attention, then the multi-context bottleneck: O = f(S ⊙ C ⊙ M).

    One set of weights serves all experts' maps at once; batch norm keeps the experts' statistics apart.

    Args:
        channels: C of input and output.
        num_experts: N, the chunks of the maps it will be given.
        config: The `samc_*` switches.
    """

    def __init__(self, channels: int, num_experts: int, config: ModelConfig) -> None:
        super().__init__()
        self.channel_attention = ChannelAttention(channels)
        self.spatial_attention = SpatialAttention()
        self.multi_context = MultiContext(channels, num_experts, config)

    def forward(self, mixed: ChannelMaps) -> ChannelMaps:
        """Return O_n from M_n for all experts."""
        weighted = mixed.with_values(mixed.values_CMP * self.channel_attention(mixed))
        attended = mixed.with_values(weighted.values_CMP * self.spatial_attention(weighted))
        refined: ChannelMaps = self.multi_context(attended)
        return refined


class SeparateSAMC(nn.ModuleList):
    """One SAMC per expert (`samc_shared: false`)."""

    def __init__(self, channels: int, num_experts: int, config: ModelConfig) -> None:
        super().__init__(SAMC(channels, 1, config) for _ in range(num_experts))

    def forward(self, mixed: ChannelMaps) -> ChannelMaps:
        """Return O_n from M_n, each expert by its own weights."""
        refined = [samc(mixed.expert(n)).values_CMP for n, samc in enumerate(self)]
        return mixed.with_values(torch.cat(refined, dim=1))


def build_samc(channels: int, config: ModelConfig) -> nn.Module:
    """Return SAMC as configured; switched off it is the identity, O_n = M_n."""
    if not config.samc:
        return nn.Identity()
    kind = SAMC if config.samc_shared else SeparateSAMC
    return kind(channels, config.experts, config)
