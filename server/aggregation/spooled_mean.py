"""The mean over the sites' replies on disk, then the server optimiser, one tensor at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from server.aggregation.mean import weighted_mean
from server.aggregation.server_optimizers import ServerOptimizer
from server.aggregation.spool import Spool


class SpooledMean:
    """The aggregator of all studies of this version.

    Args:
        optimizer: What is done with the mean.
        spool: Where replies lie until the round ends.
        weights: Weight of each site in the mean, > 0.
        updated: Keys that sites send back; the others are never touched.
        batch_norm: Keys that take the plain mean whatever the optimiser.
    """

    def __init__(
        self,
        optimizer: ServerOptimizer,
        spool: Spool,
        weights: Mapping[str, float],
        *,
        updated: Collection[str],
        batch_norm: Collection[str] = (),
    ) -> None:
        self._optimizer, self._spool, self._weights = optimizer, spool, weights
        self._updated, self._batch_norm = frozenset(updated), frozenset(batch_norm)

    def clear(self) -> None:
        """Forget the round and remove its files."""
        self._spool.clear()

    def take(self, site: str, payload: bytes) -> None:
        """Write one reply to disk, with the weight its site is enrolled with."""
        self._spool.add(site, payload, self._weights[site])

    def next_model(self, current: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a new model with the keys, shapes and dtypes of `current`, computed in float64."""
        self._optimizer.begin_round()
        following: dict[str, Tensor] = {}
        with self._spool.reading() as replies, torch.no_grad():
            for name, tensor in current.items():
                if name not in self._updated:
                    following[name] = tensor
                    continue
                mean = weighted_mean(replies.rows(name))
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
