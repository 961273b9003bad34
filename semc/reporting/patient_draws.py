"""Draws of test patients and what a group of predictions scores on each of them.

Frames of one patient resemble each other, so patients are drawn, with all their images (cluster bootstrap; Field and
Welsh, "Bootstrapping clustered data", J. R. Stat. Soc. B 2007). Every draw is a weight per patient, and a score needs
only weighted sums of per-patient confusion matrices, so no image is visited twice.

Shapes: R draws, P patients of a site, K classes.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from semc.exit_codes import ExitCode, SemcError
from semc.reporting.predictions import Predictions

Metric = Literal["macro_f1", "balanced_accuracy", "accuracy"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SiteScores:
    """Scores of one group at one site."""

    by_seed: Mapping[int, Floats]
    """Seed to [R + 1]: all patients first, then the draws."""

    @property
    def mean_R(self) -> Floats:  # noqa: N802 - shape suffix
        """Mean over seeds [R + 1]."""
        return np.asarray(np.mean(list(self.by_seed.values()), axis=0))


def draw_patients(site: str, num_patients: int, resamples: int, seed: int) -> Floats:
    """Return how often each patient of a site is drawn.

    The draws depend on the site's name and number of patients alone, not on which other sites or arms there are.

    Returns:
        Weights [R + 1, P]: a row of ones, then R draws of P patients with replacement.
    """
    rng = np.random.default_rng([seed, zlib.crc32(site.encode())])
    draws = rng.multinomial(num_patients, np.full(num_patients, 1 / num_patients), size=resamples)
    return np.concatenate([np.ones((1, num_patients)), draws.astype(np.float64)])


def scores_of_group(
    records: Sequence[Predictions], draws: Mapping[str, Floats], metric: Metric
) -> dict[str, SiteScores]:
    """Return the scores of one group at every site and seed.

    Args:
        records: Of the group, one per seed and test site.
        draws: Site to weights [R + 1, P].
        metric: Which score.

    Raises:
        SemcError: CHECKPOINT_INVALID where two records are of one seed and site.
    """
    scores: dict[str, dict[int, Floats]] = {}
    for record in records:
        by_seed = scores.setdefault(record.test_site, {})
        if record.seed in by_seed:
            raise SemcError(
                ExitCode.CHECKPOINT_INVALID,
                f"Arm '{record.arm}' has two sets of predictions of seed {record.seed} at site '{record.test_site}'.",
                "keep one",
            )
        counts_PKK = _counts_by_patient(record)
        num_classes = record.num_classes
        counts_RKK = draws[record.test_site] @ counts_PKK.reshape(len(counts_PKK), -1)
        by_seed[record.seed] = scores_of_counts(counts_RKK.reshape(-1, num_classes, num_classes), metric)
    return {site: SiteScores(dict(sorted(by_seed.items()))) for site, by_seed in scores.items()}


def scores_of_counts(counts_RKK: Floats, metric: Metric) -> Floats:
    """Return the score of many confusion matrices, classes without an image left out as in :mod:`semc.metrics`.

    Args:
        counts_RKK: Rows truth, columns prediction; no matrix is empty.
        metric: Which score.

    Returns:
        Scores [R].
    """
    hits_RK = np.diagonal(counts_RKK, axis1=1, axis2=2)
    if metric == "accuracy":
        return np.asarray(hits_RK.sum(axis=1) / counts_RKK.sum(axis=(1, 2)))
    support_RK = counts_RKK.sum(axis=2)
    present_RK = support_RK > 0
    over_RK = support_RK if metric == "balanced_accuracy" else (support_RK + counts_RKK.sum(axis=1)) / 2
    score_RK = np.divide(hits_RK, over_RK, out=np.zeros_like(over_RK), where=present_RK)
    return np.asarray(score_RK.sum(axis=1) / present_RK.sum(axis=1))


def _counts_by_patient(record: Predictions) -> Floats:
    """Return one confusion matrix a patient [P, K, K], patients in the order of their numbers."""
    _, index_B = np.unique(record.patients, return_inverse=True)
    counts_PKK = np.zeros((record.num_patients, record.num_classes, record.num_classes))
    np.add.at(counts_PKK, (index_B, np.asarray(record.labels), record.predicted_B), 1)
    return counts_PKK


def paired_images(groups: Mapping[str, Sequence[Predictions]]) -> dict[str, Predictions]:
    """Return one record of every test site, after making sure that all are of the same images.

    Raises:
        SemcError: CHECKPOINT_INVALID where they are not.
    """
    found: dict[str, Predictions] = {}
    for record in (record for records in groups.values() for record in records):
        first = found.setdefault(record.test_site, record)
        if (record.patients, record.labels) != (first.patients, first.labels):
            raise SemcError(
                ExitCode.CHECKPOINT_INVALID,
                f"The predictions at site '{record.test_site}' are of different test images.",
                "compare only runs over the same sites",
            )
    return found
