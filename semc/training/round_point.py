"""A point between two steps of a training round, from which the rest of the round is the same, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from semc.exit_codes import ExitCode, SemcError

PARTS: Final = ("network", "objective", "optimiser", "means", "random")
"""What a step changes: all weights and buffers, queue and running means, momentum and loss scale, the sums behind
the round's figures, the generators."""


@dataclass(frozen=True)
class RoundPoint:
    """Everything that the steps after it depend on, except the incoming weights and the data."""

    steps: int
    """Steps done."""
    seconds: float
    """Time spent on them, over all processes that worked on the round."""
    tensors: dict[str, Tensor]
    """`<part>/<name>`, on the CPU; sharing no memory."""

    def part(self, part: str) -> dict[str, Tensor]:
        """Return the tensors of one of :data:`PARTS`, by their names in it."""
        prefix = f"{part}/"
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }

    def require(self, part: str, names: Iterable[str]) -> None:
        """Refuse a point that lacks something.

        Raises:
            SemcError: CHECKPOINT_INVALID.
        """
        missing = sorted(set(names) - self.part(part).keys())
        if missing:
            raise SemcError(
                ExitCode.CHECKPOINT_INVALID,
                f"A saved point of a round lacks '{missing[0]}'.",
                "remove the folder 'partial' of the study's state",
            )


TakePoint = Callable[[], RoundPoint]
"""Copies the present state; as expensive as the network is large."""
AfterStep = Callable[[TakePoint], None]
"""Called after every step; whether the point is worth taking is its own decision."""
