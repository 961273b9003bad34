"""What an arm is fairly measured by, and how many of the arms it would need were run.

The gap between training alone and one model on all images is the federation's to close only where both have the arm's
own loss and network; against others, its share would mix the two. Nothing here falls back to another pair.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from semc.reporting.groups import LOCAL, POOLED


@dataclass(frozen=True)
class Yardsticks:
    """The two arms with the loss and network of the arm they measure."""

    local: str = LOCAL
    """Each site alone."""
    pooled: str = POOLED
    """One model on all images in one place."""

    def missing(self, names: Collection[str]) -> tuple[str, ...]:
        """Return those that are not among the arms run."""
        return tuple(name for name in (self.local, self.pooled) if name not in names)


def measured_pairs(
    yardsticks: Mapping[str, Yardsticks], names: Collection[str]
) -> dict[Yardsticks, list[str]]:
    """Return every pair that was run to the arms it measures, in their order."""
    return _by_pair(yardsticks, names, run=True)


def missing_pairs(
    yardsticks: Mapping[str, Yardsticks], names: Collection[str]
) -> dict[Yardsticks, list[str]]:
    """Return every pair that was not run, or not whole, to the arms it would measure."""
    return _by_pair(yardsticks, names, run=False)


def _by_pair(
    yardsticks: Mapping[str, Yardsticks], names: Collection[str], *, run: bool
) -> dict[Yardsticks, list[str]]:
    pairs: dict[Yardsticks, list[str]] = {}
    for name in names:
        pair = yardsticks.get(name)
        if pair is not None and (not pair.missing(names)) == run:
            pairs.setdefault(pair, []).append(name)
    return pairs
