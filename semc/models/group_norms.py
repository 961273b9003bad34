"""`model.norm: group`: every batch norm of a network replaced by a norm that couples no images.

Batch norms are found by type, never by name. They hold no random initial values, so all other weights are bit-equal
to those of the same study with batch norm.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from semc.models.expert_batch_norm import ExpertBatchNorm
from semc.models.expert_group_norm import ExpertGroupNorm, num_groups
from semc.models.projection import Projection


def replace_batch_norms(network: nn.Module) -> None:
    """Put group norms in the place of all batch norms, and layer norm where the projection normalises vectors."""
    for parent in list(network.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, ExpertBatchNorm):
                # One group over the embedding of an image: layer norm.
                vectors = isinstance(parent, Projection) and module is parent.embed_norm
                setattr(parent, name, _like(module, groups=1 if vectors else None))
            elif isinstance(module, _BatchNorm):
                setattr(parent, name, nn.GroupNorm(num_groups(module.num_features), module.num_features))


def _like(norm: ExpertBatchNorm, groups: int | None) -> ExpertGroupNorm:
    channels = norm.norms[0].num_features
    assert isinstance(channels, int)
    return ExpertGroupNorm(channels, norm.num_experts, per_expert=len(norm.norms) > 1, groups=groups)
