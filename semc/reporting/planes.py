"""How many images of each plane are found, with the interval a count of that size allows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from semc.reporting.intervals import wilson_interval
from semc.reporting.predictions import Predictions
from semc.reporting.thin_sites import MIN_RANKED_PATIENTS


@dataclass(frozen=True)
class PlaneRecall:
    """One class of one group of predictions on one set of test images."""

    plane: str
    num_images: int
    """Its test images, each counted once whatever the number of seeds."""
    num_patients: int
    """Patients behind those images."""
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
    patients = [_patients_with(label, by_site.values()) for label in range(len(classes))]
    return [
        PlaneRecall(
            plane=name,
            num_images=round(float(support)),
            num_patients=num_patients,
            recall=float(hits / support) if support else None,
            interval=wilson_interval(float(hits), round(float(support))),
        )
        for name, hits, support, num_patients in zip(
            classes, np.diagonal(counts_KK), support_K, patients, strict=True
        )
    ]


def rank_among(values: Sequence[tuple[float | None, int]]) -> list[int | None]:
    """Rank values, 1 for the highest; equal values share a rank.

    Args:
        values: Value and number of patients behind it.

    Returns:
        None where there is no value or fewer patients than :data:`~semc.reporting.thin_sites.MIN_RANKED_PATIENTS`.
    """
    ranked = [value for value, number in values if value is not None and number >= MIN_RANKED_PATIENTS]
    return [
        1 + sum(other > value for other in ranked)
        if value is not None and number >= MIN_RANKED_PATIENTS
        else None
        for value, number in values
    ]


def _patients_with(label: int, sites: Iterable[Sequence[Predictions]]) -> int:
    """Return the patients with an image of a class, site by site; every seed of a site is of the same images."""
    return sum(
        len(
            {
                patient
                for patient, found in zip(seeds[0].patients, seeds[0].labels, strict=True)
                if found == label
            }
        )
        for seeds in sites
    )
