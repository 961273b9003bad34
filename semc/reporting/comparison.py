"""Federation against training alone, site by site, and the one sentence that follows from it.

Sites are compared on their own test images. A mean over sites is taken over the same sites in both arms,
and a site is called the worst only where it has enough test images: with three images any order is chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from semc.metrics import Confusion
from semc.reporting.result import StudyResult

MIN_RANKED_IMAGES: Final = 10
"""Fewest test images with which a site is ranked."""
_Z_95: Final = 1.959964
Arm = Literal["federation", "local_only"]


@dataclass(frozen=True)
class SiteComparison:
    """One hospital's two models on its own test images."""

    site: str
    num_train_examples: int
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


@dataclass(frozen=True)
class Verdict:
    """Did the federation help?"""

    answer: Literal["yes", "partly", "no", "unknown"]
    sentence: str
    caution: str
    """What limits the answer."""


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


def judge(comparison: Comparison) -> Verdict:
    """Say whether the federation beat training alone, and say so where it did not.

    `yes`: better on average, and its worst site at least as good as the worst site alone. `partly`: only
    one of the two. `no`: neither.
    """
    federation, alone = comparison.mean_macro_f1("federation"), comparison.mean_macro_f1("local_only")
    if federation is None:
        return Verdict("unknown", "No hospital measured the final model, so there is no score to report.", "")
    count = sum(1 for site in comparison.sites if site.federation is not None)
    reached = f"a mean macro-F1 of {federation:.3f} over {count} hospital{'s' if count != 1 else ''}"
    if not comparison.has_local_only or alone is None:
        return Verdict(
            "unknown",
            f"The federation reaches {reached}. Training alone was not run, so its gain is not known.",
            _caution(comparison),
        )
    worst, worst_alone = comparison.worst("federation"), comparison.worst("local_only")
    floor = worst.macro_f1 - worst_alone.macro_f1 if worst is not None and worst_alone is not None else None
    losers = [site.site for site in comparison.sites if site.difference is not None and site.difference < 0]
    gain = federation - alone
    answer: Literal["yes", "partly", "no"]
    if gain > 0:
        answer = "yes" if floor is None or floor >= 0 else "partly"
    else:
        answer = "partly" if floor is not None and floor > 0 else "no"
    than = "equal to" if gain == 0 else f"{abs(gain):.3f} {'above' if gain > 0 else 'below'}"
    parts = [f"The federation reaches {reached}, {than} training alone ({alone:.3f})."]
    if worst is not None and worst_alone is not None:
        parts.append(
            f"The weakest hospital has {worst.macro_f1:.3f} ({worst.site}, n = {worst.num_test_images}); "
            f"alone, the weakest has {worst_alone.macro_f1:.3f} ({worst_alone.site}, "
            f"n = {worst_alone.num_test_images})."
        )
    if losers:
        parts.append(f"Training alone is better at {len(losers)} of {count}: {', '.join(losers)}.")
    return Verdict(answer, " ".join(parts), _caution(comparison))


def wilson_interval(hits: int, total: int) -> tuple[float, float] | None:
    """Return Wilson's 95 % interval of a proportion, or None without trials.

    It takes images as independent; several frames of one patient make the true uncertainty larger.
    """
    if total == 0:
        return None
    share, square = hits / total, _Z_95**2
    centre = (share + square / (2 * total)) / (1 + square / total)
    half = _Z_95 * math.sqrt(share * (1 - share) / total + square / (4 * total**2)) / (1 + square / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def accuracy_interval(confusion: Confusion) -> tuple[float, float] | None:
    """Return the 95 % interval of an accuracy."""
    return wilson_interval(int(confusion.counts.trace()), confusion.num_examples)


def _caution(comparison: Comparison) -> str:
    """Say how far the answer carries."""
    federation, alone = comparison.pooled("federation"), comparison.pooled("local_only")
    images = federation.num_examples if federation is not None else 0
    text = f"One run with one seed, {images} test images in all."
    if federation is not None and alone is not None and comparison.has_local_only:
        first, second = accuracy_interval(federation), accuracy_interval(alone)
        if first is not None and second is not None and first[0] <= second[1] and second[0] <= first[1]:
            text += " The 95 % intervals of the two overall accuracies overlap: the difference can be chance."
    small = [site.site for site in comparison.sites if site.num_test_images < MIN_RANKED_IMAGES]
    if small:
        text += f" Not ranked, with fewer than {MIN_RANKED_IMAGES} test images: {', '.join(small)}."
    return text


def _sum(confusions: Sequence[Confusion]) -> Confusion | None:
    """Pool confusion matrices; None where there is none."""
    if not confusions:
        return None
    pooled = confusions[0]
    for confusion in confusions[1:]:
        pooled += confusion
    return pooled
