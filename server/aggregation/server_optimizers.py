"""Server optimisers: the averaged update as a pseudo-gradient, tensor by tensor in float64.

With x the current global tensor, y the sites' mean and d = y - x:

FedAvgM  m <- beta m + (x - y),  x <- x - eta m                                    (Hsu et al. 2019)
FedAdam  m <- b1 m + (1 - b1) d,  v <- b2 v + (1 - b2) d^2,
         x <- x + eta sqrt(1 - b2^(t+1)) / (1 - b1^(t+1)) * m / (sqrt(v) + tau)    (Reddi et al. 2021)

The bias correction's exponent t + 1 in round t is Flower's (Kingma and Ba would use t, Reddi et al. none);
the tests hold both optimisers against Flower's strategies. Batch-norm tensors never come here: an adaptive
step on a variance can make it negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import torch
from torch import Tensor

_STEP: Final = "step"


class ServerOptimizer(Protocol):
    """What turns the sites' mean into the next global tensor."""

    def begin_round(self) -> None:
        """Count one aggregation."""

    def step(self, name: str, current: Tensor, mean: Tensor) -> Tensor:
        """Return the next global tensor.

        Args:
            name: Key of the tensor, under which its state is kept.
            current: The tensor the sites started from, float64.
            mean: The sites' weighted mean, float64, same shape.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything a continued study needs, tensors only."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state_dict` returned."""


class PlainMean:
    """FedAvg and FedProx: the mean is the next model."""

    def begin_round(self) -> None:
        """Nothing to count."""

    def step(self, name: str, current: Tensor, mean: Tensor) -> Tensor:
        """Return the mean."""
        return mean

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: there is no state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Accept the empty state."""
        if state:
            raise ValueError("plain averaging has no state")


class Momentum:
    """FedAvgM: heavy-ball momentum on the averaged update.

    Args:
        learning_rate: eta.
        momentum: beta.
    """

    def __init__(self, learning_rate: float, momentum: float) -> None:
        self._learning_rate = learning_rate
        self._momentum = momentum
        self._velocity: dict[str, Tensor] = {}

    def begin_round(self) -> None:
        """Nothing to count: the first round starts each velocity from its own pseudo-gradient."""

    def step(self, name: str, current: Tensor, mean: Tensor) -> Tensor:
        """Move along the accumulated update."""
        gradient = current - mean
        previous = self._velocity.get(name)
        velocity = gradient if previous is None else previous * self._momentum + gradient
        self._velocity[name] = velocity
        return current - self._learning_rate * velocity

    def state_dict(self) -> dict[str, Tensor]:
        """Return the velocities, float64."""
        return dict(self._velocity)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put the velocities back."""
        self._velocity = dict(state)


class Adam:
    """FedAdam: per-coordinate adaptive steps on the averaged update.

    Args:
        learning_rate: eta.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        tau: Adaptivity floor.
    """

    def __init__(self, learning_rate: float, beta1: float, beta2: float, tau: float) -> None:
        self._learning_rate = learning_rate
        self._beta1, self._beta2, self._tau = beta1, beta2, tau
        self._step = 0
        self._first: dict[str, Tensor] = {}
        self._second: dict[str, Tensor] = {}

    def begin_round(self) -> None:
        """Count the round t of the bias correction."""
        self._step += 1

    def step(self, name: str, current: Tensor, mean: Tensor) -> Tensor:
        """Move along the first moment, scaled by the root of the second."""
        delta = mean - current
        first = self._first.get(name, torch.zeros_like(delta)) * self._beta1 + delta * (1 - self._beta1)
        second = self._second.get(name, torch.zeros_like(delta)) * self._beta2 + delta**2 * (1 - self._beta2)
        self._first[name], self._second[name] = first, second
        exponent = self._step + 1
        rate = self._learning_rate * (1 - self._beta2**exponent) ** 0.5 / (1 - self._beta1**exponent)
        step: Tensor = rate * first / (second.sqrt() + self._tau)
        return current + step

    def state_dict(self) -> dict[str, Tensor]:
        """Return both moments, float64, and the number of rounds."""
        state = {f"first/{name}": tensor for name, tensor in self._first.items()}
        state |= {f"second/{name}": tensor for name, tensor in self._second.items()}
        return state | {_STEP: torch.tensor(self._step)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put the moments and the number of rounds back."""
        self._step = int(state[_STEP])
        self._first = _under("first/", state)
        self._second = _under("second/", state)


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
