"""Losses are computed in float32 whatever precision the network ran in."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from semc.models import SEMCOutput


def full_precision(output: SEMCOutput) -> SEMCOutput:
    """Return the output with half-precision fields in float32; wider ones are kept.

    Exponentials and log-sum-exp over 2048 rows lose the small differences that matter in 8 or 11 bits.
    """
    fields: dict[str, Any] = {
        field.name: _widen(getattr(output, field.name)) for field in dataclasses.fields(output)
    }
    return dataclasses.replace(output, **fields)


def _widen(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.to(torch.promote_types(tensor.dtype, torch.float32))
