"""How many images of each plane are found, with the interval a count of that size allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semc.reporting.comparison import MIN_RANKED_IMAGES
from semc.reporting.intervals import wilson_interval
from semc.reporting.predictions import Predictions


@dataclass(frozen=True)
class PlaneRecall:
    """One class of one group of predictions on one set of test images."""

    plane: str
    num_images: int
    """Its test images, each counted once whatever the number of seeds."""
    recall: float | None
    """Share found, mean over seeds; None without an image."""
    interval: tuple[float, float] | None
    """Wilson's 95 % interval of that share of that many images."""


def plane_recalls(records: Sequence[Predictions], classes: Sequence[str]) -> list[PlaneRecall]:
    """Return the recall of every class over the records of one or several sites and seeds.

    Several seeds answer about the same images: hits are averaged over them, never added up, which would invent images.

    Args:
        records: Of one arm or condition.
        classes: K names.
    """
    by_site: dict[str, list[Predictions]] = {}
    for record in records:
        by_site.setdefault(record.test_site, []).append(record)
    counts_KK = sum(
        (np.mean([record.confusion.counts for record in seeds], axis=0) for seeds in by_site.values()),
        start=np.zeros((len(classes), len(classes))),
    )
    support_K = counts_KK.sum(axis=1)
    return [
        PlaneRecall(
            plane=name,
            num_images=round(float(support)),
            recall=float(hits / support) if support else None,
            interval=wilson_interval(float(hits), round(float(support))),
        )
        for name, hits, support in zip(classes, np.diagonal(counts_KK), support_K, strict=True)
    ]


def rank_among(values: Sequence[tuple[float | None, int]]) -> list[int | None]:
    """Rank values, 1 for the highest; equal values share a rank.

    Args:
        values: Value and number of images behind it.

    Returns:
        None where there is no value or fewer images than :data:`~semc.reporting.comparison.MIN_RANKED_IMAGES`.
    """
    ranked = [value for value, number in values if value is not None and number >= MIN_RANKED_IMAGES]
    return [
        1 + sum(other > value for other in ranked)
        if value is not None and number >= MIN_RANKED_IMAGES
        else None
        for value, number in values
    ]
