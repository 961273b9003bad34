"""What one round leaves at its end: shared tensors and counts, before anything is checked or sent."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from semc.protocol import ALPHA, EXPERT_USE, TRAIN_LOSS, TRAIN_SECONDS, TRAIN_STEPS
from semc.training import TrainResult

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


def training_metrics(result: TrainResult) -> dict[str, MetricValue]:
    """Return what may leave of a round's training, by the names of the protocol."""
    metrics: dict[str, MetricValue] = {
        TRAIN_LOSS: float(result.loss),
        TRAIN_SECONDS: float(result.seconds),
        TRAIN_STEPS: result.steps,
        EXPERT_USE: [float(share) for share in result.expert_use],
    }
    if "alpha" in result.terms:
        metrics[ALPHA] = float(result.terms["alpha"])
    return metrics
