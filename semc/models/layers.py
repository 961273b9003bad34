"""Layers that compute exactly what their torch namesakes do, in the form that is fastest on small maps.

SEMC spends most of its time on maps of a few positions (2x2 at 64 px, 4x4 at 128 px) with hundreds of
channels. There a convolution is a matrix product, and oneDNN's convolutions are two to thirty times slower
than that product, above all backward. Results differ from torch's by rounding only; larger maps and GPUs take
torch's own kernels. Shapes: B batch, C channels, L any flattened positions.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from semc.models.kernel_taps import SMALL_MAP_POSITIONS, kernel_taps


class SmallMapConv2d(nn.Conv2d):
    """nn.Conv2d (odd kernel, "same" padding) that is one matrix product where the output map is small."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve [B, C_in, H, W] to [B, C_out, H', W']; small maps come back in channels-last memory."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = ((side - 1) // stride + 1 for side in input.shape[2:])
        if input.device.type != "cpu" or height * width > SMALL_MAP_POSITIONS:
            return super().forward(input)
        if kernel == 1:
            rows_LC = input[:, :, ::stride, ::stride].permute(0, 2, 3, 1).flatten(0, 2)
        else:
            taps_TIO = kernel_taps(kernel, stride, *input.shape[2:]).to(input.dtype)
            # [B, C, O, T] by a product with zeros and ones: im2col, and col2im backward, at GEMM speed.
            patches_BCX = input.flatten(2) @ taps_TIO.permute(1, 2, 0).flatten(1)
            patches_BCOT = patches_BCX.view(*patches_BCX.shape[:2], height * width, -1)
            rows_LC = patches_BCOT.transpose(1, 2).flatten(2).flatten(0, 1)
        output_LC = functional.linear(rows_LC, self.weight.flatten(1), self.bias)
        return output_LC.view(len(input), height, width, -1).permute(0, 3, 1, 2)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> SmallMapConv2d:
    """Return a 1x1 convolution without bias."""
    return SmallMapConv2d(in_channels, out_channels, 1, stride=stride, bias=False)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> SmallMapConv2d:
    """Return a padded 3x3 convolution without bias."""
    return SmallMapConv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


class ChannelLinear(nn.Linear):
    """nn.Linear over the leading dimension: a 1x1 convolution of channel-major maps is one matrix product."""

    def forward(self, input: Tensor) -> Tensor:
        """Map [C_in, L] to [C_out, L]."""
        output_CL = self.weight @ input
        return output_CL if self.bias is None else output_CL + self.bias[:, None]


def at_least_float32(values: Tensor) -> Tensor:
    """Return half-precision values as float32; float32 and float64 pass unchanged."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def full_precision(values: Tensor) -> AbstractContextManager[None]:
    """Suspend mixed precision on the values' device; a device without it (meta) needs nothing."""
    device = values.device.type
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
