"""Which kernel tap carries which input position to which output position of a small map."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

SMALL_MAP_POSITIONS = 16
"""Largest output map, H*W, computed by matrix products on CPU (4x4); beyond, torch's own kernels win."""


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # the cached tensor must stay usable in training
def kernel_taps(kernel: int, stride: int, height: int, width: int) -> Tensor:
    """Return the connections of a convolution padded by kernel // 2.

    Args:
        kernel: Side k of the kernel, odd.
        stride: Step of the kernel.
        height: Rows of the input map.
        width: Columns of the input map.

    Returns:
        [k*k, P_in, P_out] of zeros and ones: entry (t, i, o) is 1 where tap t carries input i to output o.
    """
    row_K, column_K = _grid(kernel, kernel)
    row_I, column_I = _grid(height, width)
    row_O, column_O = _grid((height - 1) // stride + 1, (width - 1) // stride + 1)
    radius = kernel // 2
    hits_row = row_K[:, None, None] + row_O * stride - radius == row_I[:, None]
    hits_column = column_K[:, None, None] + column_O * stride - radius == column_I[:, None]
    return (hits_row & hits_column).float()


def _grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return row and column of every position, row by row."""
    position = torch.arange(height * width, device="cpu")
    return position // width, position % width
