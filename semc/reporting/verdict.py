"""The one sentence a study ends with: did the federation help? Also where it did not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from semc.reporting.comparison import MIN_RANKED_IMAGES, Comparison
from semc.reporting.intervals import accuracy_interval


@dataclass(frozen=True)
class Verdict:
    """Did the federation help?"""

    answer: Literal["yes", "partly", "no", "unclear", "unknown"]
    """unclear: measured, but the intervals overlap or that of the difference holds zero."""
    sentence: str
    caution: str
    """What limits the answer."""
    details: tuple[str, ...] = ()
    """Further sentences, for who wants to know more."""


def judge(comparison: Comparison) -> Verdict:
    """Say whether the federation beat training alone, and say so where it did not.

    `yes`: better on average, and its worst site at least as good as the worst site alone. `partly`: only
    one of the two. `no`: neither. `unclear`: the intervals of the two overall accuracies overlap.
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
    answer: Literal["yes", "partly", "no", "unclear"]
    if _overlap(comparison):
        answer = "unclear"
    elif gain > 0:
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


def _caution(comparison: Comparison) -> str:
    """Say how far the answer carries."""
    federation = comparison.pooled("federation")
    images = federation.num_examples if federation is not None else 0
    text = f"One run with one seed, {images} test images in all."
    if _overlap(comparison):
        text += " The 95 % intervals of the two overall accuracies overlap: the difference can be chance."
    small = [site.site for site in comparison.sites if site.num_test_images < MIN_RANKED_IMAGES]
    if small:
        text += f" Not ranked, with fewer than {MIN_RANKED_IMAGES} test images: {', '.join(small)}."
    return text


def _overlap(comparison: Comparison) -> bool:
    """Tell whether the 95 % intervals of the two overall accuracies overlap; False where one was not measured."""
    federation, alone = comparison.pooled("federation"), comparison.pooled("local_only")
    if federation is None or alone is None or not comparison.has_local_only:
        return False
    first, second = accuracy_interval(federation), accuracy_interval(alone)
    return first is not None and second is not None and first[0] <= second[1] and second[0] <= first[1]
