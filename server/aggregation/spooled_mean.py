"""The mean over the sites' replies on disk, then the server optimiser, one tensor at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from server.aggregation.mean import weighted_mean
from server.aggregation.replies import reading
from server.aggregation.server_optimizers import ServerOptimizer


class SpooledMean:
    """The aggregator of all studies of this version.

    Args:
        optimizer: What is done with the mean.
        weights: Weight of each site in the mean, > 0.
        updated: Keys that sites send back; the others are never touched.
        batch_norm: Keys that take the plain mean whatever the optimiser.
    """

    def __init__(
        self,
        optimizer: ServerOptimizer,
        weights: Mapping[str, float],
        *,
        updated: Collection[str],
        batch_norm: Collection[str] = (),
    ) -> None:
        self._optimizer, self._weights = optimizer, weights
        self._updated, self._batch_norm = frozenset(updated), frozenset(batch_norm)

    def next_model(self, current: Mapping[str, Tensor], payloads: Mapping[str, Path]) -> dict[str, Tensor]:
        """Return a new model with the keys, shapes and dtypes of `current`, computed in float64."""
        self._optimizer.begin_round()
        following: dict[str, Tensor] = {}
        with reading(payloads) as replies, torch.no_grad():
            for name, tensor in current.items():
                if name not in self._updated:
                    following[name] = tensor
                    continue
                mean = weighted_mean((self._weights[site], row) for site, row in replies.rows(name))
                if name not in self._batch_norm:
                    mean = self._optimizer.step(name, tensor.double(), mean)
                following[name] = mean.to(tensor.dtype)
        return following

    def state_dict(self) -> dict[str, Tensor]:
        """Return the optimiser's state."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put the optimiser's state back."""
        self._optimizer.load_state_dict(state)
