"""The experts' feature maps side by side, channels first: the form in which SAMC and the projection work.

All N experts share one tensor [C, M, P]: M = N*B maps, expert-major (eq. 11 orders its pool alike), P = H*W
positions. A 1x1 convolution is then one matrix product for all experts, a depthwise convolution of a small
map one batched product, and batch norm per expert one call on C*N channels; none of them copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semc.models.layers import at_least_float32


@dataclass(frozen=True)
class ChannelMaps:
    """M maps of one size, channel-major."""

    values_CMP: Tensor
    """[C, M, P], contiguous."""
    height: int
    width: int
    num_experts: int
    """N; the M maps are N equal chunks, expert 1 first."""

    @classmethod
    def stack(cls, maps_N: Sequence[Tensor]) -> ChannelMaps:
        """Lay N maps [B, C, H, W] of equal shape side by side."""
        height, width = maps_N[0].shape[2:]
        values_CMP = torch.cat([maps_BCHW.transpose(0, 1).flatten(2) for maps_BCHW in maps_N], dim=1)
        return cls(values_CMP, height, width, len(maps_N))

    def with_values(self, values: Tensor) -> ChannelMaps:
        """Return new maps of the same size from values that view as [C', M, P]."""
        return ChannelMaps(
            values.view(-1, *self.values_CMP.shape[1:]), self.height, self.width, self.num_experts
        )

    def as_images(self, values_CMP: Tensor) -> Tensor:
        """View values [C', M, P] as images [M, C', H, W] (a view where memory allows)."""
        channels, num_maps, _ = values_CMP.shape
        return values_CMP.transpose(0, 1).reshape(num_maps, channels, self.height, self.width)

    def by_expert(self, vectors_CM: Tensor) -> Tensor:
        """View one vector per map, [C', M], as [N, B, C']."""
        return vectors_CM.view(len(vectors_CM), self.num_experts, -1).permute(1, 2, 0)

    def flat(self) -> Tensor:
        """View the values as a matrix [C, M*P]."""
        return self.values_CMP.flatten(1)

    def expert(self, index: int) -> ChannelMaps:
        """Return one expert's maps (a copy, contiguous)."""
        chunk_CBP = self.values_CMP.chunk(self.num_experts, dim=1)[index].contiguous()
        return ChannelMaps(chunk_CBP, self.height, self.width, 1)

    def global_average(self) -> Tensor:
        """Return the global average pool GAP per expert and image, at least float32: [N, B, C]."""
        return self.by_expert(at_least_float32(self.values_CMP.mean(dim=2)))
