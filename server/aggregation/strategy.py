"""One aggregation: the rule over the sites, then the server optimiser, one tensor at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from server.aggregation.mean import weighted_mean
from server.aggregation.server_optimizers import ServerOptimizer
from server.aggregation.spool import Spool


class Strategy:
    """Combines a round's replies into the next global model.

    Args:
        optimizer: What is done with the mean.
    """

    def __init__(self, optimizer: ServerOptimizer) -> None:
        self._optimizer = optimizer

    def aggregate(
        self, current: Mapping[str, Tensor], spool: Spool, batch_norm: Collection[str]
    ) -> dict[str, Tensor]:
        """Return the next global model.

        Args:
            current: The model the sites started from, float32.
            spool: Their validated replies, at least one.
            batch_norm: Keys that take the plain mean whatever the optimiser.

        Returns:
            A new model with the keys, shapes and dtypes of `current`, computed in float64.
        """
        self._optimizer.begin_round()
        following: dict[str, Tensor] = {}
        with spool.reading() as replies, torch.no_grad():
            for name, tensor in current.items():
                mean = weighted_mean(replies.rows(name))
                if name not in batch_norm:
                    mean = self._optimizer.step(name, tensor.double(), mean)
                following[name] = mean.to(tensor.dtype)
        return following

    def state_dict(self) -> dict[str, Tensor]:
        """Return the optimiser's state, tensors only."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put the optimiser's state back."""
        self._optimizer.load_state_dict(state)
