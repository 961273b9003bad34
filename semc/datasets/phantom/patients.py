"""Who is examined where: each centre's class shares, and the planes, frames and split of its patients.

Class shares have a seed stream of their own, so label shift and style shift switch independently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from semc.datasets.phantom.config import PhantomConfig
from semc.seed import derive_seed


@dataclass(frozen=True)
class PhantomFrame:
    """One image to draw: its place in the cohort."""

    centre: str
    patient: str
    plane: str
    frame: int
    split: Literal["train", "test"]


def class_shares(config: PhantomConfig, centre: str) -> NDArray[np.float64]:
    """Return the shares [K] of the config's classes at one centre."""
    num_classes = len(config.classes)
    if config.class_prior is None:
        return np.full(num_classes, 1.0 / num_classes)
    rng = np.random.default_rng(derive_seed(config.seed, "class prior", centre))
    return rng.dirichlet(np.full(num_classes, config.class_prior))


def plan_centre(config: PhantomConfig, centre: str) -> list[PhantomFrame]:
    """List a centre's frames, patient by patient; test patients come last and follow the same shares."""
    shares = class_shares(config, centre)
    frames = []
    splits: tuple[tuple[Literal["train", "test"], int, int], ...] = (
        ("train", 0, config.patients_per_centre),
        ("test", config.patients_per_centre, config.test_patients_per_centre),
    )
    for split, first, count in splits:
        rng = np.random.default_rng(derive_seed(config.seed, "planes", centre, split))
        slots = _quota(shares, count * config.planes_per_patient)
        planes = rng.permutation(slots).reshape(count, config.planes_per_patient)
        for number in range(count):
            for frame in range(config.frames_per_patient):
                plane = config.classes[planes[number, frame % config.planes_per_patient]]
                frames.append(PhantomFrame(centre, f"{centre}-p{first + number:04d}", plane, frame, split))
    return frames


def _quota(shares: NDArray[np.float64], total: int) -> NDArray[np.intp]:
    """Return `total` class ids in proportion to `shares` by largest remainder."""
    exact = shares * total
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return np.repeat(np.arange(len(shares)), counts)
