"""Group norm over the experts' stacked maps: every map is normalised by itself, so no image touches another.

Wu and He 2018, "Group normalization". With one group on a map of one position it is layer norm.
"""

from __future__ import annotations

from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

_MOST_GROUPS: Final = 32
_LEAST_CHANNELS: Final = 8
"""Channels of a group. A group of one channel on a 1x1 map would be normalised to a constant."""


def num_groups(channels: int) -> int:
    """Return the number of groups: the most that divide the channels, at most 32, each of at least 8 channels."""
    most = max(1, min(_MOST_GROUPS, channels // _LEAST_CHANNELS))
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)


class ExpertGroupNorm(nn.Module):
    """Group norm of [C, N*B*P] channel-major values, map by map.

    Args:
        channels: C.
        num_experts: N, the number of chunks.
        per_expert: Scale and shift of each expert's own instead of one for all.
        groups: Groups of channels; None = :func:`num_groups`.
    """

    def __init__(
        self, channels: int, num_experts: int, *, per_expert: bool, groups: int | None = None
    ) -> None:
        super().__init__()
        self.num_experts = num_experts
        groups = num_groups(channels) if groups is None else groups
        self.norms = nn.ModuleList(
            nn.GroupNorm(groups, channels) for _ in range(num_experts if per_expert else 1)
        )

    def forward(self, values_CL: Tensor, positions: int) -> Tensor:
        """Normalise [C, L], L = N*B*P expert-major with P positions a map, to the same shape."""
        values_MCP = values_CL.view(len(values_CL), -1, positions).transpose(0, 1)
        normed_MCP = functional.group_norm(values_MCP, self._norm(0).num_groups, eps=self._norm(0).eps)
        normed_NBCP = normed_MCP.view(self.num_experts, -1, *normed_MCP.shape[1:])
        output_NBCP = normed_NBCP * self._affine("weight") + self._affine("bias")
        return output_NBCP.flatten(0, 1).transpose(0, 1).flatten(1)

    def _norm(self, expert: int) -> nn.GroupNorm:
        return cast("nn.GroupNorm", self.norms[expert % len(self.norms)])

    def _affine(self, name: str) -> Tensor:
        """Return scale or shift of all experts, [N, 1, C, 1]."""
        per_expert = [cast("Tensor", getattr(self._norm(n), name)) for n in range(self.num_experts)]
        return torch.stack(per_expert)[:, None, :, None]
