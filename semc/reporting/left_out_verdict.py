"""What the laboratory says of left-out centres: does a model serve them, and what does adapting it change?"""

from __future__ import annotations

from typing import Literal

from semc.reporting.bootstrap import PatientBootstrap
from semc.reporting.captions import count_of_centres
from semc.reporting.groups import LOCAL, UNADAPTED, is_yardstick
from semc.reporting.verdict import Verdict
from semc.reporting.verdict_words import (
    by_seed_in_words,
    limits_in_words,
    no_mean_in_words,
    paired_in_words,
    score_in_words,
    signed,
    told_apart,
)


def judge_left_out(conditions: PatientBootstrap, main_arm: str) -> Verdict:
    """Say whether a model serves a centre that took no part in its training, and what adapting it changes.

    Compared with what that centre reaches alone: `yes` surely better without adaptation; `partly` surely better only
    after one; `no` surely worse; `unclear` otherwise; `unknown` where training alone was not run.
    """
    names = conditions.names
    end = "" if UNADAPTED in names else f" ({main_arm})"
    unadapted, local = f"{UNADAPTED}{end}", LOCAL if LOCAL in names else f"{LOCAL}{end}"
    mean = conditions.mean(unadapted) if unadapted in names else None
    if mean is None:
        if unadapted not in names:
            return Verdict("unknown", "No unadapted model was scored.", "")
        return Verdict(
            "unknown", f"{no_mean_in_words(conditions, 'condition')}, so nothing can be compared.", ""
        )
    parts = [
        "At a centre that took no part in training, the model with the training centres' mean statistics reaches a "
        "mean macro-F1 of "
        f"{score_in_words(mean)} over {count_of_centres(conditions, 'left-out centre')}."
    ]
    adapted = [name for name in names if name not in (unadapted, local) and _is_adaptation(name, end)]
    changes = [
        f"{name} changes that by {signed(change.estimate)}{told_apart(change)}."
        for name in adapted
        if (change := conditions.paired_difference(name, unadapted)) is not None
    ]
    alone = conditions.mean(local) if local in names else None
    against = conditions.paired_difference(unadapted, local) if local in names else None
    if alone is None or against is None:
        parts.append("What such a centre reaches alone was not run.")
        return Verdict("unknown", " ".join(parts), limits_in_words(conditions), tuple(changes))
    parts.append(
        f"On its own images alone such a centre reaches {score_in_words(alone)}. {paired_in_words(against)}"
    )
    better = [
        name
        for name in adapted
        if (found := conditions.paired_difference(name, local)) is not None
        and found.sign > 0
        and found.steady
    ]
    if better:
        parts.append(
            f"Adapted, it is better than alone, with an interval that leaves out zero: {', '.join(better)}."
        )
    answer: Literal["yes", "partly", "no", "unclear"]
    if against.sign > 0 and against.steady:
        answer = "yes"
    elif better:
        answer = "partly"
    else:
        answer = "no" if against.sign < 0 and against.steady else "unclear"
    return Verdict(
        answer, " ".join(parts), limits_in_words(conditions), (*by_seed_in_words(against), *changes)
    )


def _is_adaptation(name: str, end: str) -> bool:
    """Whether a condition is the main arm's model adapted, no yardstick and no other arm's."""
    return not is_yardstick(name.split(" (", maxsplit=1)[0]) and (
        name.endswith(end) if end else " (" not in name
    )
