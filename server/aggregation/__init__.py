"""Aggregation: how the replies of a round become the next global model."""

from __future__ import annotations

from semc.config import FederationConfig
from server.aggregation.server_optimizers import Adam, Momentum, PlainMean, ServerOptimizer
from server.aggregation.spool import Spool, SpoolEntry
from server.aggregation.strategy import Strategy

__all__ = ["Spool", "SpoolEntry", "Strategy", "build_strategy"]


def build_strategy(federation: FederationConfig) -> Strategy:
    """Return the strategy a study names; FedProx averages like FedAvg, its term is the sites' business."""
    optimizer: ServerOptimizer
    match federation.algorithm:
        case "fedavg" | "fedprox":
            optimizer = PlainMean()
        case "fedavgm":
            optimizer = Momentum(federation.server_learning_rate, federation.server_momentum)
        case "fedadam":
            optimizer = Adam(
                federation.server_learning_rate,
                federation.server_momentum,
                federation.server_beta2,
                federation.server_tau,
            )
    return Strategy(optimizer)
