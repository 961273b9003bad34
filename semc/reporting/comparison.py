"""Federation against training alone, site by site.

Sites are compared on their own test images. A mean over sites is taken over the same sites in both arms,
and a site is called the worst only where it has enough test images: with three images any order is chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from semc.metrics import Confusion
from semc.reporting.result import StudyResult

MIN_RANKED_IMAGES: Final = 10
"""Fewest test images with which a site is ranked."""
Arm = Literal["federation", "local_only"]


@dataclass(frozen=True)
class SiteComparison:
    """One hospital's two models on its own test images."""

    site: str
    num_train_examples: int | None
    """None in mode patient_dp, which names no count."""
    federation: Confusion | None
    """None where the site did not answer the closing evaluation."""
    local_only: Confusion | None
    """None where training alone was not run."""

    @property
    def num_test_images(self) -> int:
        """Test images behind the scores."""
        confusion = self.federation or self.local_only
        return confusion.num_examples if confusion is not None else 0

    @property
    def difference(self) -> float | None:
        """Macro-F1 of the federation minus that of training alone."""
        federation, alone = self.macro_f1("federation"), self.macro_f1("local_only")
        return federation - alone if federation is not None and alone is not None else None

    def confusion(self, arm: Arm) -> Confusion | None:
        """Return the test confusion of one arm."""
        return self.federation if arm == "federation" else self.local_only

    def macro_f1(self, arm: Arm) -> float | None:
        """Return the macro-F1 of one arm."""
        confusion = self.confusion(arm)
        return confusion.macro_f1 if confusion is not None else None


@dataclass(frozen=True)
class Worst:
    """The site with the lowest macro-F1 among those with enough test images."""

    site: str
    macro_f1: float
    num_test_images: int


@dataclass(frozen=True)
class Comparison:
    """All hospitals of a study."""

    sites: tuple[SiteComparison, ...]

    @property
    def has_local_only(self) -> bool:
        """Whether any site has both arms."""
        return any(site.difference is not None for site in self.sites)

    @property
    def num_train_examples(self) -> int | None:
        """Training images of all sites; None where a site names no count."""
        counts = [site.num_train_examples for site in self.sites]
        return None if None in counts else sum(count for count in counts if count is not None)

    def mean_macro_f1(self, arm: Arm) -> float | None:
        """Return the mean over sites; with both arms run, over the sites that have both."""
        scores = [score for site in self._comparable() if (score := site.macro_f1(arm)) is not None]
        return sum(scores) / len(scores) if scores else None

    def pooled(self, arm: Arm) -> Confusion | None:
        """Return the confusion over all sites' test images."""
        confusions = [site.confusion(arm) for site in self._comparable()]
        return _sum([confusion for confusion in confusions if confusion is not None])

    def worst(self, arm: Arm) -> Worst | None:
        """Return the worst site, or None where no site has :data:`MIN_RANKED_IMAGES` test images."""
        ranked = [
            Worst(site.site, score, site.num_test_images)
            for site in self._comparable()
            if (score := site.macro_f1(arm)) is not None and site.num_test_images >= MIN_RANKED_IMAGES
        ]
        return min(ranked, key=lambda worst: (worst.macro_f1, worst.site), default=None)

    def _comparable(self) -> list[SiteComparison]:
        both = [site for site in self.sites if site.difference is not None]
        return both or list(self.sites)


def compare(result: StudyResult) -> Comparison:
    """Return both arms of every site of a result."""
    return Comparison(
        tuple(
            SiteComparison(
                site=site.site,
                num_train_examples=site.num_train_examples,
                federation=result.confusion(site.test_confusion),
                local_only=result.confusion(site.local_only_confusion),
            )
            for site in result.sites
        )
    )


def _sum(confusions: Sequence[Confusion]) -> Confusion | None:
    """Pool confusion matrices; None where there is none."""
    if not confusions:
        return None
    pooled = confusions[0]
    for confusion in confusions[1:]:
        pooled += confusion
    return pooled
