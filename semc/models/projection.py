"""The projection head: unit-norm embeddings p_n of the experts' refined maps, for the contrastive losses."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from semc.models.channel_maps import ChannelMaps
from semc.models.expert_batch_norm import ExpertBatchNorm
from semc.models.layers import ChannelLinear, at_least_float32, full_precision

HIDDEN_DIVISOR = 4
"""Channels per hidden unit (2048 -> 512)."""


class Projection(nn.Module):
    """1x1 convolution, batch norm, ReLU, GAP, linear, batch norm, L2 norm; one head for all experts.

    In training the batch norms need at least two images.

    Args:
        channels: C of the maps.
        embedding_dim: D.
        num_experts: N chunks for batch norm.
        per_expert_bn: One batch norm per expert, or one for all.
    """

    def __init__(self, channels: int, embedding_dim: int, num_experts: int, *, per_expert_bn: bool) -> None:
        super().__init__()
        hidden = channels // HIDDEN_DIVISOR
        self.reduce = ChannelLinear(channels, hidden, bias=False)
        self.reduce_norm = ExpertBatchNorm(hidden, num_experts, per_expert=per_expert_bn)
        self.embed = ChannelLinear(hidden, embedding_dim)
        self.embed_norm = ExpertBatchNorm(embedding_dim, num_experts, per_expert=per_expert_bn)

    def forward(self, refined: ChannelMaps) -> Tensor:
        """Return the embeddings [N, B, D], rows of unit length, at least float32."""
        reduced_CL = self.reduce_norm(self.reduce(refined.flat()), refined.values_CMP.shape[2])
        hidden = refined.with_values(functional.relu(reduced_CL, inplace=True))
        pooled_CM = at_least_float32(hidden.values_CMP.mean(dim=2))
        # Unit length to float32 precision, also under mixed precision: cosines divided by tau need it.
        with full_precision(pooled_CM):
            embeddings_DM = functional.normalize(self.embed_norm(self.embed(pooled_CM), 1), dim=0)
        return refined.by_expert(embeddings_DM)
