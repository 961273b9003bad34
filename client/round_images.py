"""Which images a site's rounds see, in which order: decided by (study seed, site, round) alone, to be had again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from client.progress import Progress, Report
from semc.config import SiteConfig, StudyConfig
from semc.datasets import (
    Batch,
    SiteData,
    SiteImages,
    adaptation_batches,
    steps_per_epoch,
    training_batches,
)
from semc.seed import derive_seed


class RoundImages:
    """The training images of one site in one study, in batches.

    Args:
        site: The hospital.
        study: The study.
        data: The site's rows.
        images: Their pixels.
    """

    def __init__(self, site: SiteConfig, study: StudyConfig, data: SiteData, images: SiteImages) -> None:
        self._site, self._study, self._rows, self._images = site, study, data.train, images

    @property
    def steps(self) -> int:
        """Optimiser steps of one round at this site."""
        training = self._study.training
        if training.local_steps is not None:
            return training.local_steps
        assert training.local_epochs is not None
        return training.local_epochs * steps_per_epoch(len(self._rows), training.batch_size)

    def batches(self, round_number: int, first_step: int, report: Report) -> Iterator[Batch]:
        """Return a round's batches; whoever takes them hears how many there were.

        Args:
            round_number: From 1.
            first_step: Steps of the round that are done already; their batches are left out.
            report: Told each step.
        """
        found = training_batches(
            self._rows,
            self._images,
            batch_size=self._study.training.batch_size,
            num_steps=self.steps,
            seed=derive_seed(self._study.seed, self._site.site, round_number, "batches"),
            workers=self._site.loader_workers,
            first_step=first_step,
        )
        return _counted(found, round_number, first_step, self.steps, report)

    def of(self, ids: Sequence[int]) -> Iterator[Batch]:
        """Yield images by row number, in the same batches for the same ids; unknown rows are left out."""
        rows = {row.index: row for row in self._rows}
        return adaptation_batches(
            [rows[number] for number in ids if number in rows],
            self._images,
            seed=derive_seed(self._study.seed, self._site.site, "refresh"),
        )


def _counted(
    batches: Iterable[Batch], round_number: int, first: int, total: int, report: Report
) -> Iterator[Batch]:
    """Pass batches on and tell how many there were."""
    for done, batch in enumerate(batches, start=first):
        report(Progress("training", round_number, done, total))
        yield batch
