"""Mixed precision: on a GPU the network computes in 16 bits; objectives compute their losses in float32.

A contrastive loss over a thousand keys loses its small terms in 16 bits, so every objective leaves autocast
for its losses (`semc.objectives`); evaluation runs in float32 altogether.
"""

from __future__ import annotations

import torch

from semc.config import TrainingConfig


def amp_dtype(training: TrainingConfig, device: torch.device) -> torch.dtype | None:
    """Return the 16-bit type to compute in, or None for float32 (no GPU, or switched off).

    bfloat16 needs no loss scaling, so float16 is only for GPUs without it.
    """
    if training.amp == "off" or device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
