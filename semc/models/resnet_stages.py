"""The four stages of ResNet-18/34/50 (He et al. 2016), with torchvision's parameter names and initial values.

Written out rather than imported so that the small maps of stage 4 can use :class:`SmallMapConv2d`; a test
holds them equal to torchvision's networks, and torchvision's weight files load unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from semc.models.layers import conv1x1, conv3x3


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18/34)."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, maps_BCHW: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C', H/stride, W/stride], sides rounded up."""
        shortcut = maps_BCHW if self.downsample is None else self.downsample(maps_BCHW)
        hidden = functional.relu(self.bn1(self.conv1(maps_BCHW)), inplace=True)
        return functional.relu(self.bn2(self.conv2(hidden)) + shortcut, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (ResNet-50; stride on the 3x3, as torchvision has it)."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = conv1x1(in_channels, planes)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv3x3(planes, planes, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = conv1x1(planes, planes * self.expansion)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.downsample = downsample

    def forward(self, maps_BCHW: Tensor) -> Tensor:
        """Map [B, C, H, W] to [B, C', H/stride, W/stride], sides rounded up."""
        shortcut = maps_BCHW if self.downsample is None else self.downsample(maps_BCHW)
        hidden = functional.relu(self.bn1(self.conv1(maps_BCHW)), inplace=True)
        hidden = functional.relu(self.bn2(self.conv2(hidden)), inplace=True)
        return functional.relu(self.bn3(self.conv3(hidden)) + shortcut, inplace=True)


@dataclass(frozen=True)
class ResNetShape:
    """Block type, blocks per stage and stem width of one ResNet."""

    block: type[BasicBlock] | type[Bottleneck]
    depths: tuple[int, int, int, int]
    width: int = 64

    def channels(self, stage: int) -> int:
        """Return the output channels of stage 1-4."""
        return (self.width << (stage - 1)) * self.block.expansion

    def build_stage(self, stage: int) -> nn.Sequential:
        """Return stage 1-4 with fresh weights; stages 2-4 halve the map."""
        planes, stride = self.width << (stage - 1), 1 if stage == 1 else 2
        in_channels = self.width if stage == 1 else self.channels(stage - 1)
        out_channels = self.channels(stage)
        downsample = None
        if stride != 1 or in_channels != out_channels:
            downsample = nn.Sequential(
                conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels)
            )
        blocks = [self.block(in_channels, planes, stride, downsample)]
        blocks += [self.block(out_channels, planes, 1, None) for _ in range(self.depths[stage - 1] - 1)]
        result = nn.Sequential(*blocks)
        initialise_convolutions(result)
        return result


RESNETS: dict[str, ResNetShape] = {
    # Not narrower: oneDNN as torch 2.15 ships it writes past its memory in the backward pass of 8-channel
    # convolutions with an odd batch and more than one thread (DECISIONS.md).
    "tiny": ResNetShape(BasicBlock, (1, 1, 1, 1), width=16),
    "small": ResNetShape(BasicBlock, (1, 1, 1, 1), width=32),
    "resnet18": ResNetShape(BasicBlock, (2, 2, 2, 2)),
    "resnet34": ResNetShape(BasicBlock, (3, 4, 6, 3)),
    "resnet50": ResNetShape(Bottleneck, (3, 4, 6, 3)),
}


def initialise_convolutions(module: nn.Module) -> None:
    """Draw every convolution's weights as torchvision's ResNet does (He normal, fan out)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
