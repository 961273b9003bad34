"""How far a difference between arms can be trusted: a bootstrap over patients, paired across arms.

Frames of one patient resemble each other, so patients are drawn, with all their images (cluster bootstrap; Field and
Welsh, "Bootstrapping clustered data", J. R. Stat. Soc. B 2007). Within each test site as many patients are drawn as it
has, and one draw serves all arms and seeds: what two arms share cancels in their difference. Every draw is a weight
per patient, and a score needs only weighted sums of per-patient confusion matrices, so no image is visited twice.

The intervals say how much the scores owe to which patients happened to be tested. They hold neither the chance in
training (the spread between seeds stands beside them) nor that of which hospitals took part.

Shapes: R draws, P patients of a site, K classes.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from semc.exit_codes import ExitCode, SemcError
from semc.reporting.estimate import Difference, Estimate, GapClosed, WorstSite
from semc.reporting.predictions import Predictions
from semc.reporting.thin_sites import MIN_RANKED_PATIENTS, is_thin

Metric = Literal["macro_f1", "balanced_accuracy", "accuracy"]
Floats = NDArray[np.float64]
NUM_RESAMPLES: Final = 2000
_TAILS: Final = (0.025, 0.975)


@dataclass(frozen=True)
class _SiteScores:
    """Scores of one group at one site: seed to [R + 1], all patients first, then the draws."""

    by_seed: Mapping[int, Floats]

    @property
    def mean_R(self) -> Floats:  # noqa: N802 - shape suffix
        return np.asarray(np.mean(list(self.by_seed.values()), axis=0))


class PatientBootstrap:
    """Scores of several groups of predictions (arms, or conditions of a left-out centre) over the same draws.

    Args:
        groups: Name to its records, one per seed and test site.
        metric: Which score.
        resamples: R.
        seed: Of the draws.

    Raises:
        SemcError: CHECKPOINT_INVALID where a group has two records of one seed and site, or records of one site are of
            different test images, which cannot be paired.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[Predictions]],
        metric: Metric = "macro_f1",
        resamples: int = NUM_RESAMPLES,
        seed: int = 0,
    ) -> None:
        self.metric, self.resamples = metric, resamples
        self._images = _paired_images(groups)
        draws = {
            site: draw_patients(site, record.num_patients, resamples, seed)
            for site, record in self._images.items()
        }
        self._scores: dict[str, dict[str, _SiteScores]] = {
            name: _scores_of_group(records, draws, metric) for name, records in groups.items()
        }
        self.all_sites = tuple(self._images)
        """Every test site, in the order met."""
        self.thin_sites = tuple(site for site in self.all_sites if is_thin(self.num_patients(site)))
        """Test sites with too few patients: shown, but in no figure over sites and in no difference."""
        self.sites = tuple(
            site for site in self.all_sites if self._is_everywhere(site) and site not in self.thin_sites
        )
        """The other test sites that every seed of every group was scored on; all figures over sites are over these."""

    @property
    def names(self) -> tuple[str, ...]:
        """The groups."""
        return tuple(self._scores)

    def num_images(self, site: str) -> int:
        """Return a site's test images."""
        return self._images[site].num_images

    def num_patients(self, site: str) -> int:
        """Return a site's test patients."""
        return self._images[site].num_patients

    def num_seeds(self, name: str) -> int:
        """Return the seeds of a group."""
        return len(self._seeds(name))

    def site(self, name: str, site: str) -> Estimate | None:
        """Return a group's score at one site, None where it was not scored there."""
        scores = self._scores[name].get(site)
        if scores is None:
            return None
        by_seed = [at[0] for at in scores.by_seed.values()]
        return _estimate(scores.mean_R, by_seed, self._has_intervals and site not in self.thin_sites)

    def mean(self, name: str) -> Estimate | None:
        """Return the mean over :attr:`sites`, every site counting once; None where there is none."""
        if not self.sites:
            return None
        by_seed = [self._mean_R(name, seed)[0] for seed in self._seeds(name)]
        return _estimate(self._mean_R(name), by_seed, self._has_intervals)

    def worst(self, name: str) -> WorstSite | None:
        """Return the worst of :attr:`sites` with enough patients to be ranked; None where there is none."""
        ranked = [site for site in self.sites if self.num_patients(site) >= MIN_RANKED_PATIENTS]
        if not ranked:
            return None
        scores = [self._scores[name][site] for site in ranked]
        lowest = int(np.argmin([score.mean_R[0] for score in scores]))
        by_seed = [min(score.by_seed[seed][0] for score in scores) for seed in self._seeds(name)]
        minimum_R = np.min([score.mean_R for score in scores], axis=0)
        return WorstSite(
            site=ranked[lowest],
            num_images=self.num_images(ranked[lowest]),
            estimate=_estimate(minimum_R, by_seed, self._has_intervals),
        )

    def paired_difference(self, first: str, second: str, site: str | None = None) -> Difference | None:
        """Return `first` minus `second`, in the mean over :attr:`sites` or at one site.

        Returns:
            None where either was not scored there, or the site is thin.
        """
        sites = self.sites if site is None else (site,)
        if not sites or any(at not in self._scores[name] for at in sites for name in (first, second)):
            return None
        if site in self.thin_sites:
            return None
        difference_R = self._mean_R(first, sites=sites) - self._mean_R(second, sites=sites)
        seeds = self._seeds(first, sites)
        by_seed = (
            [self._mean_R(first, seed, sites)[0] - self._mean_R(second, seed, sites)[0] for seed in seeds]
            if seeds == self._seeds(second, sites)
            else []
        )
        above = float((difference_R[1:] > 0).mean()) if self.resamples else 0.0
        return Difference(_estimate(difference_R, by_seed, self._has_intervals), above)

    def gap_closed(self, name: str, local: str, pooled: str) -> GapClosed:
        """Return which share of the gap from `local` to `pooled` a group closes, in the mean over :attr:`sites`.

        A share of a gap that may not exist means nothing, so there is none unless the whole interval of the gap lies
        above zero.
        """
        gap = self.paired_difference(pooled, local)
        if gap is None or gap.estimate.low is None:
            return GapClosed(None, f"too few sites or patients to measure the gap from {local} to {pooled}")
        if gap.sign <= 0:
            below = gap.estimate.value <= 0
            return GapClosed(
                None,
                f"{pooled} is not above {local}"
                if below
                else f"the gap from {local} to {pooled} can be chance",
            )
        gap_R = self._mean_R(pooled) - self._mean_R(local)
        way_R = self._mean_R(name) - self._mean_R(local)
        share_R = np.divide(way_R, gap_R, out=np.full_like(way_R, np.nan), where=gap_R != 0)
        return GapClosed(_estimate(share_R, [], drawn=True), "")

    @property
    def _has_intervals(self) -> bool:
        return self.resamples > 1

    def _seeds(self, name: str, sites: Sequence[str] | None = None) -> list[int]:
        scores = self._scores[name]
        return sorted({seed for site in sites or scores for seed in scores[site].by_seed})

    def _is_everywhere(self, site: str) -> bool:
        return all(
            site in scores and sorted(scores[site].by_seed) == self._seeds(name)
            for name, scores in self._scores.items()
        )

    def _mean_R(  # noqa: N802 - shape suffix
        self, name: str, seed: int | None = None, sites: Sequence[str] | None = None
    ) -> Floats:
        """Return the mean over sites of one seed, or of the mean over seeds [R + 1]."""
        scores = [self._scores[name][site] for site in sites or self.sites]
        rows = [score.mean_R if seed is None else score.by_seed[seed] for score in scores]
        return np.asarray(np.mean(rows, axis=0))


def draw_patients(site: str, num_patients: int, resamples: int, seed: int) -> Floats:
    """Return how often each patient of a site is drawn.

    The draws depend on the site's name and number of patients alone, not on which other sites or arms there are.

    Returns:
        Weights [R + 1, P]: a row of ones, then R draws of P patients with replacement.
    """
    rng = np.random.default_rng([seed, zlib.crc32(site.encode())])
    draws = rng.multinomial(num_patients, np.full(num_patients, 1 / num_patients), size=resamples)
    return np.concatenate([np.ones((1, num_patients)), draws.astype(np.float64)])


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


def _scores_of_group(
    records: Sequence[Predictions], draws: Mapping[str, Floats], metric: Metric
) -> dict[str, _SiteScores]:
    """Return the scores of one group at every site and seed."""
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
    return {site: _SiteScores(dict(sorted(by_seed.items()))) for site, by_seed in scores.items()}


def _counts_by_patient(record: Predictions) -> Floats:
    """Return one confusion matrix a patient [P, K, K], patients in the order of their numbers."""
    _, index_B = np.unique(record.patients, return_inverse=True)
    counts_PKK = np.zeros((record.num_patients, record.num_classes, record.num_classes))
    np.add.at(counts_PKK, (index_B, np.asarray(record.labels), record.predicted_B), 1)
    return counts_PKK


def _paired_images(groups: Mapping[str, Sequence[Predictions]]) -> dict[str, Predictions]:
    """Return one record of every test site, after making sure that all are of the same images."""
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


def _estimate(values_R: Floats, by_seed: Sequence[float], drawn: bool) -> Estimate:
    """Return the first value with the percentiles of the others."""
    low, high = np.nanquantile(values_R[1:], _TAILS) if drawn else (None, None)
    return Estimate(
        value=float(values_R[0]),
        low=float(low) if low is not None else None,
        high=float(high) if high is not None else None,
        by_seed=tuple(float(value) for value in by_seed),
    )
