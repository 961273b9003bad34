"""SAMC's two attentions: which channels (eq. 8) and which positions (eq. 9) carry anatomy."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from semc.models.channel_maps import ChannelMaps
from semc.models.layers import ChannelLinear

REDUCTION = 16
"""Channels per hidden unit of the channel attention (2048 -> 128)."""


class ChannelAttention(nn.Module):
    """C = sigmoid(FC2 δ FC1 GAP(M) + FC2 δ FC1 GMP(M)), δ leaky ReLU, no biases (eq. 8)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = ChannelLinear(channels, channels // REDUCTION, bias=False)
        self.restore = ChannelLinear(channels // REDUCTION, channels, bias=False)

    def forward(self, maps: ChannelMaps) -> Tensor:
        """Return one weight per channel and map, [C, M, 1]."""
        values_CMP = maps.values_CMP
        # max().values sends its gradient to one position, as a max pool does; amax would share it among ties.
        pooled_CL = torch.cat([values_CMP.mean(dim=2), values_CMP.max(dim=2).values], dim=1)
        scores_CL = self.restore(functional.leaky_relu(self.reduce(pooled_CL), 0.2))
        average_CM, largest_CM = scores_CL.chunk(2, dim=1)
        return torch.sigmoid(average_CM + largest_CM).unsqueeze(2)


class SpatialAttention(nn.Module):
    """S = sigmoid(Conv7x7([mean over channels, max over channels])), no bias (eq. 9)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, maps: ChannelMaps) -> Tensor:
        """Return one weight per position and map, [1, M, P]."""
        values_CMP = maps.values_CMP
        summary_2MP = torch.stack([values_CMP.mean(dim=0), values_CMP.max(dim=0).values])
        scores_M1HW = self.conv(maps.as_images(summary_2MP))
        return torch.sigmoid(scores_M1HW).flatten(2).transpose(0, 1)
