"""Residual bottleneck adapters behind each expert's refined maps (Houlsby et al. 2019, section 2.1).

They let a frozen trunk bend towards a site's images with few trained weights: noise grows with their number.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from semc.models.channel_maps import ChannelMaps
from semc.models.layers import ChannelLinear


class Adapter(nn.Module):
    """O + W_up ReLU(W_down O); W_up starts at zero, so that the network starts as it was without.

    Args:
        channels: C of the maps.
        width: Hidden channels.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.down = ChannelLinear(channels, width)
        self.up = ChannelLinear(width, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, maps: ChannelMaps) -> ChannelMaps:
        """Return maps of the same shape."""
        bent_CL: Tensor = self.up(functional.relu(self.down(maps.flat()), inplace=True))
        return maps.with_values(maps.flat() + bent_CL)


class Adapters(nn.ModuleList):
    """One adapter per expert."""

    def __init__(self, channels: int, width: int, num_experts: int) -> None:
        super().__init__(Adapter(channels, width) for _ in range(num_experts))

    def forward(self, refined: ChannelMaps) -> ChannelMaps:
        """Return O_n with each expert's own correction."""
        bent = [adapter(refined.expert(n)).values_CMP for n, adapter in enumerate(self)]
        return refined.with_values(torch.cat(bent, dim=1))
