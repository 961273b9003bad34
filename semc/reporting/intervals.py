"""How far a share of a few images can be trusted."""

from __future__ import annotations

import math
from typing import Final

from semc.metrics import Confusion

_Z_95: Final = 1.959964


def wilson_interval(hits: float, total: int) -> tuple[float, float] | None:
    """Return Wilson's 95 % interval of a proportion, or None without trials.

    It takes images as independent; several frames of one patient make the true uncertainty larger. `hits` may be a
    mean over seeds.
    """
    if total == 0:
        return None
    share, square = hits / total, _Z_95**2
    centre = (share + square / (2 * total)) / (1 + square / total)
    half = _Z_95 * math.sqrt(share * (1 - share) / total + square / (4 * total**2)) / (1 + square / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def accuracy_interval(confusion: Confusion) -> tuple[float, float] | None:
    """Return the 95 % interval of an accuracy."""
    return wilson_interval(int(confusion.counts.trace()), confusion.num_examples)
