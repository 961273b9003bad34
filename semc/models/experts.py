"""The experts: parallel copies of ResNet stage 4 on F3 (eq. 2-4) and one linear classifier each."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from semc.models.resnet_stages import RESNETS

EXPERT_NOISE = 1e-3
"""Standard deviation of the noise that tells experts with pretrained weights apart."""


class Experts(nn.ModuleList):
    """N independent stages 4.

    Args:
        backbone: resnet18 | resnet34 | resnet50.
        num_experts: N.
    """

    def __init__(self, backbone: str, num_experts: int) -> None:
        super().__init__(RESNETS[backbone].build_stage(4) for _ in range(num_experts))

    def forward(self, f3_BCHW: Tensor) -> list[Tensor]:
        """Return D_1..D_N, each [B, C, H/2, W/2]."""
        return [expert(f3_BCHW) for expert in self]

    @torch.no_grad()
    def load_pretrained(self, stage: Mapping[str, Tensor]) -> None:
        """Copy one pretrained stage 4 into every expert and add noise to its convolutions."""
        for expert in self:
            expert.load_state_dict(dict(stage))
            for layer in expert.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.weight.add_(torch.randn_like(layer.weight), alpha=EXPERT_NOISE)


class Classifiers(nn.ModuleList):
    """One linear classifier z_n = W_n GAP(O_n) + b_n per expert."""

    def __init__(self, channels: int, num_classes: int, num_experts: int) -> None:
        super().__init__(nn.Linear(channels, num_classes) for _ in range(num_experts))

    def forward(self, pooled_NBC: Tensor) -> Tensor:
        """Return the experts' logits [N, B, K]."""
        return torch.stack([head(pooled_BC) for head, pooled_BC in zip(self, pooled_NBC, strict=True)])
