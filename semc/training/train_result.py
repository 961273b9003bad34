"""What one round of local training was like, averaged over its images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from semc.objectives import LossTerms

_TERM = "term."


@dataclass(frozen=True)
class TrainResult:
    """What one round of local training was like."""

    loss: float
    """Mean over images of the objective, without the proximal term."""
    num_examples: int
    """Images seen, repeats counted."""
    steps: int
    seconds: float
    terms: dict[str, float]
    """Mean over images of each part of the objective."""
    expert_use: tuple[float, ...]
    """Mean gate weight of each expert."""


class RoundMeans:
    """Running means over the images of a round."""

    def __init__(self) -> None:
        self._steps = 0
        self._num_examples = 0
        self._loss = 0.0
        self._terms: defaultdict[str, float] = defaultdict(float)
        self._use: defaultdict[int, float] = defaultdict(float)

    def add(self, loss: float, losses: LossTerms, size: int) -> None:
        """Count one step of `size` images."""
        self._steps += 1
        self._num_examples += size
        self._loss += loss * size
        for name, value in losses.terms.items():
            self._terms[name] += value * size
        for expert, value in enumerate(losses.expert_use_N):
            self._use[expert] += value * size

    def state_dict(self) -> dict[str, Tensor]:
        """Return the sums so far; exact, so that a round that goes on ends with the same means."""
        return {
            "counts": torch.tensor([self._steps, self._num_examples]),
            "loss": torch.tensor(self._loss, dtype=torch.float64),
            "expert_use": torch.tensor(list(self._use.values()), dtype=torch.float64),
            **{_TERM + name: torch.tensor(value, dtype=torch.float64) for name, value in self._terms.items()},
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._steps, self._num_examples = state["counts"].tolist()
        self._loss = float(state["loss"])
        self._use.update(enumerate(state["expert_use"].tolist()))
        self._terms.update(
            {name.removeprefix(_TERM): float(state[name]) for name in state if name.startswith(_TERM)}
        )

    def result(self, seconds: float) -> TrainResult:
        """Return the means.

        Raises:
            ValueError: No step was counted.
        """
        if self._num_examples == 0:
            raise ValueError("a round needs at least one batch")
        return TrainResult(
            loss=self._loss / self._num_examples,
            num_examples=self._num_examples,
            steps=self._steps,
            seconds=seconds,
            terms={name: value / self._num_examples for name, value in self._terms.items()},
            expert_use=tuple(value / self._num_examples for value in self._use.values()),
        )
