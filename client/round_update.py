"""What one round leaves at its end: shared tensors and counts, before anything is checked or sent."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

MetricValue = int | float | list[int] | list[float]


@dataclass(frozen=True)
class RoundUpdate:
    """The outcome of one training round at one site."""

    shared: dict[str, Tensor]
    """Shared tensors after training, float32 on the CPU; with patient-level privacy those that were trained."""
    metrics: dict[str, MetricValue]
    """By the names of :mod:`semc.protocol`; none with patient-level privacy."""
    ledger_head: str = ""
    """SHA-256 of the privacy ledger's last entry; empty in mode none."""
