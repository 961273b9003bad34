"""The shared trunk (eq. 1): ResNet stem and stages 1-3, whose outputs are the shallow features F1, F2, F3."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from semc.models.resnet_stages import RESNETS, initialise_convolutions


@dataclass(frozen=True)
class ShallowFeatures:
    """Outputs of stages 1-3 at 1/4, 1/8 and 1/16 of the image's side, rounded up."""

    f1_BCHW: Tensor
    f2_BCHW: Tensor
    f3_BCHW: Tensor

    def __getitem__(self, number: int) -> Tensor:
        """Return F_number, number 1-3."""
        return (self.f1_BCHW, self.f2_BCHW, self.f3_BCHW)[number - 1]


class Backbone(nn.Module):
    """ResNet up to stage 3; state keys are torchvision's.

    Args:
        name: tiny | small | resnet18 | resnet34 | resnet50.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.shape = RESNETS[name]
        self.conv1 = nn.Conv2d(3, self.shape.width, 7, stride=2, padding=3, bias=False)
        initialise_convolutions(self.conv1)
        self.bn1 = nn.BatchNorm2d(self.shape.width)
        self.layer1 = self.shape.build_stage(1)
        self.layer2 = self.shape.build_stage(2)
        self.layer3 = self.shape.build_stage(3)

    def forward(self, images_BCHW: Tensor) -> ShallowFeatures:
        """Return F1, F2, F3 of grey [B, 1, H, W] or colour [B, 3, H, W] images."""
        weight = self.conv1.weight
        if images_BCHW.shape[1] == 1:
            # A grey image repeated three times under the filters is the image under their sum.
            weight = weight.sum(dim=1, keepdim=True)
        # Channels-last memory: the same numbers, and a stem four times faster on CPU (max pool, batch norm).
        images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        stem = functional.conv2d(images_BCHW, weight, stride=2, padding=3)
        stem = functional.relu(self.bn1(stem), inplace=True)
        f1 = self.layer1(functional.max_pool2d(stem, kernel_size=3, stride=2, padding=1))
        f2 = self.layer2(f1)
        return ShallowFeatures(f1, f2, self.layer3(f2))
