"""Mixed precision: the network computes in 16 bits on a GPU, everything it returns is float32.

Only the forward pass runs under autocast. Losses, queue and gate logits see float32, because a contrastive
loss over a thousand keys loses its small terms in 16 bits.
"""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor, nn

from semc.config import TrainingConfig
from semc.models import SEMCOutput


def amp_dtype(training: TrainingConfig, device: torch.device) -> torch.dtype | None:
    """Return the 16-bit type to compute in, or None for float32 (no GPU, or switched off)."""
    if training.amp == "off" or device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


class MixedPrecision(nn.Module):
    """The same network, its forward pass under autocast.

    Args:
        network: Called, never changed.
        dtype: 16-bit type, or None to call the network as it is.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.network = network
        self._dtype = dtype

    def forward(self, images_BCHW: Tensor) -> SEMCOutput:
        """Return the network's output with every tensor in float32."""
        with torch.autocast(images_BCHW.device.type, self._dtype, enabled=self._dtype is not None):
            output: SEMCOutput = self.network(images_BCHW)
        if self._dtype is None:
            return output
        values = {field.name: getattr(output, field.name) for field in fields(output)}
        return replace(
            output, **{name: value.float() for name, value in values.items() if isinstance(value, Tensor)}
        )
