"""Aggregation: how the replies of a round become the next global model."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from semc.config import FederationConfig
from server.aggregation.aggregator import Aggregator
from server.aggregation.server_optimizers import Adam, Momentum, PlainMean, ServerOptimizer
from server.aggregation.spooled_mean import SpooledMean

__all__ = ["Aggregator", "SpooledMean", "build_aggregator"]


def build_aggregator(
    federation: FederationConfig,
    weights: Mapping[str, float],
    *,
    updated: Collection[str],
    batch_norm: Collection[str] = (),
) -> Aggregator:
    """Return the aggregator a study names; FedProx averages like FedAvg, its term is the sites' business.

    Args:
        federation: Names the rule and its settings.
        weights: Weight of each site.
        updated: Keys that sites send back.
        batch_norm: Keys that no server optimiser touches.
    """
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
    return SpooledMean(optimizer, weights, updated=updated, batch_norm=batch_norm)
