"""The fast layers against torch's own, forward and backward, on both sides of every size threshold."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from semc.models.channel_maps import ChannelMaps
from semc.models.depthwise import DepthwiseConv
from semc.models.kernel_taps import kernel_taps
from semc.models.layers import ChannelLinear, conv1x1, conv3x3


def slow_taps(kernel: int, stride: int, height: int, width: int) -> torch.Tensor:
    out_height, out_width = (height - 1) // stride + 1, (width - 1) // stride + 1
    taps = torch.zeros(kernel * kernel, height * width, out_height * out_width)
    for y in range(out_height):
        for x in range(out_width):
            for ky in range(kernel):
                for kx in range(kernel):
                    iy, ix = y * stride + ky - kernel // 2, x * stride + kx - kernel // 2
                    if 0 <= iy < height and 0 <= ix < width:
                        taps[ky * kernel + kx, iy * width + ix, y * out_width + x] = 1
    return taps


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 4), (5, 2)])
def test_kernel_taps(kernel, stride, size):
    assert torch.equal(kernel_taps(kernel, stride, *size), slow_taps(kernel, stride, *size))


@pytest.mark.parametrize("build", [conv1x1, conv3x3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 3), (4, 4), (5, 5), (7, 8), (9, 9)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_small_map_convolution(build, stride, size, layout):
    layer = build(6, 10, stride).double()
    maps = torch.randn(3, 6, *size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    expected = functional.conv2d(maps, layer.weight, stride=stride, padding=layer.padding)
    assert_same_with_gradients(layer(maps), expected, [maps, layer.weight])


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (4, 4), (4, 5), (7, 7)])
def test_depthwise_convolution(kernel, size):
    layer = DepthwiseConv(6, kernel).double()
    images = torch.randn(4, 6, *size, dtype=torch.float64, requires_grad=True)
    maps = ChannelMaps.stack([images[:2], images[2:]])
    output = maps.as_images(layer(maps))
    expected = functional.conv2d(images, layer.weight, padding=kernel // 2, groups=6)
    assert_same_with_gradients(output, expected, [images, layer.weight])


def test_depthwise_starts_like_torch():
    torch.manual_seed(0)
    layer = DepthwiseConv(8, 3)
    torch.manual_seed(0)
    assert torch.equal(layer.weight, nn.Conv2d(8, 8, 3, groups=8, bias=False).weight)


@pytest.mark.parametrize("bias", [True, False])
def test_channel_linear(bias):
    layer = ChannelLinear(5, 3, bias=bias).double()
    values = torch.randn(5, 11, dtype=torch.float64)
    torch.testing.assert_close(layer(values), functional.linear(values.T, layer.weight, layer.bias).T)


def test_channel_maps_keep_experts_apart():
    maps_N = [torch.randn(2, 3, 4, 5) for _ in range(3)]
    maps = ChannelMaps.stack(maps_N)
    assert maps.values_CMP.is_contiguous()
    assert maps.values_CMP.shape == (3, 6, 20)
    assert torch.equal(maps.as_images(maps.values_CMP), torch.cat(maps_N))
    for n, maps_BCHW in enumerate(maps_N):
        expert = maps.expert(n)
        assert torch.equal(expert.as_images(expert.values_CMP), maps_BCHW)
        torch.testing.assert_close(maps.global_average()[n], maps_BCHW.mean((2, 3)))


def assert_same_with_gradients(output, expected, leaves):
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-12)
    direction = torch.randn_like(expected)
    ours = torch.autograd.grad((output * direction).sum(), leaves)
    theirs = torch.autograd.grad((expected * direction).sum(), leaves)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)
