"""How far a difference between arms can be trusted: a bootstrap over patients, paired across arms.

Within each test site as many patients are drawn as it has, and one draw serves all arms and seeds: what two arms share
cancels in their difference. The draws themselves: :mod:`semc.reporting.patient_draws`.

The intervals say how much the scores owe to which patients happened to be tested. They hold neither the chance in
training (the spread between seeds stands beside them) nor that of which hospitals took part.

Shapes: R draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from semc.reporting.estimate import Difference, Estimate, GapClosed, WorstSite
from semc.reporting.patient_draws import (
    Floats,
    Metric,
    SiteScores,
    draw_patients,
    paired_images,
    scores_of_group,
)
from semc.reporting.predictions import Predictions
from semc.reporting.thin_sites import MIN_RANKED_PATIENTS, is_thin

NUM_RESAMPLES: Final = 2000
_TAILS: Final = (0.025, 0.975)


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
        self._images = paired_images(groups)
        draws = {
            site: draw_patients(site, record.num_patients, resamples, seed)
            for site, record in self._images.items()
        }
        self._scores: dict[str, dict[str, SiteScores]] = {
            name: scores_of_group(records, draws, metric) for name, records in groups.items()
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


def _estimate(values_R: Floats, by_seed: Sequence[float], drawn: bool) -> Estimate:
    """Return the first value with the percentiles of the others."""
    low, high = np.nanquantile(values_R[1:], _TAILS) if drawn else (None, None)
    return Estimate(
        value=float(values_R[0]),
        low=float(low) if low is not None else None,
        high=float(high) if high is not None else None,
        by_seed=tuple(float(value) for value in by_seed),
    )
