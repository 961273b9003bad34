"""Figures with their intervals, and what may be said of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    """Over all patients, mean over seeds."""
    low: float | None
    """None, as `high`, where there are too few patients to draw from."""
    high: float | None
    by_seed: tuple[float, ...]
    """The figure of every seed alone, in the order of the seeds; empty where arms have other seeds."""

    @property
    def spread(self) -> tuple[float, float] | None:
        """Lowest and highest seed; None with a single one."""
        return (min(self.by_seed), max(self.by_seed)) if len(self.by_seed) > 1 else None


@dataclass(frozen=True)
class WorstSite:
    """The site with the lowest score among those with enough test patients."""

    site: str
    num_images: int
    estimate: Estimate
    """Its interval is that of the lowest site of each draw, whichever that is."""


@dataclass(frozen=True)
class Difference:
    """One arm minus another over the same draws."""

    estimate: Estimate
    share_above_zero: float
    """Share of draws in which the first arm is better."""

    @property
    def sign(self) -> Literal[-1, 0, 1]:
        """1 or -1 where the interval leaves out zero, else 0: not told apart."""
        low, high = self.estimate.low, self.estimate.high
        if low is None or high is None or low <= 0 <= high:
            return 0
        return 1 if low > 0 else -1

    @property
    def steady(self) -> bool:
        """Whether no seed alone points the other way; the draws of patients cannot see the chance in training."""
        return all(value * self.estimate.value >= 0 for value in self.estimate.by_seed)


@dataclass(frozen=True)
class GapClosed:
    """Share of the way from training alone to training on pooled images that an arm goes."""

    share: Estimate | None
    reason: str
    """Why there is no share; "" where there is one."""
