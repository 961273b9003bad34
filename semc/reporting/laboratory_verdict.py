"""The sentences the laboratory ends with, made from its figures: what holds, what does not, what cannot be told.

An answer is yes or no only where the interval of a paired difference leaves out zero and no seed alone points the
other way. The arm that is judged is named before anyone looks at the figures; the highest arm is named beside it, as
the choice of it is flattered.
"""

from __future__ import annotations

from typing import Literal

from semc.reporting.bootstrap import PatientBootstrap
from semc.reporting.captions import count_of_centres
from semc.reporting.groups import is_alone, is_pooled, is_yardstick
from semc.reporting.text_table import format_share
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
from semc.reporting.yardsticks import Yardsticks


def judge_arms(arms: PatientBootstrap, main_arm: str, fair: Yardsticks | None) -> Verdict:
    """Say whether the main arm beats training alone across the centres.

    `yes`: surely better in the mean and its worst centre no lower; `partly`: surely better in the mean, but its worst
    centre is lower; `no`: surely worse; `unclear`: the interval holds zero; `unknown`: nothing to compare with.

    Args:
        arms: All of them.
        main_arm: The arm that is judged.
        fair: What it is measured by, and nothing else in its place; None where that is not known.
    """
    mean = arms.mean(main_arm) if main_arm in arms.names else None
    if mean is None:
        return Verdict("unknown", f"{no_mean_in_words(arms, 'arm')}, so the arms cannot be compared.", "")
    reached = (
        f"Together ({main_arm}), {count_of_centres(arms)} reach a mean macro-F1 of {score_in_words(mean)}"
    )
    local = fair.local if fair is not None and fair.local in arms.names else None
    difference = arms.paired_difference(main_arm, local) if local is not None else None
    alone = arms.mean(local) if local is not None else None
    caution = limits_in_words(arms)
    if fair is None or local is None or difference is None or alone is None:
        return _gain_unknown(arms, main_arm, fair, reached, caution)
    parts = [f"{reached}; each alone ({local}), {score_in_words(alone)}. {paired_in_words(difference)}"]
    floor = 0.0
    worst, worst_alone = arms.worst(main_arm), arms.worst(local)
    if worst is not None and worst_alone is not None:
        floor = worst.estimate.value - worst_alone.estimate.value
        parts.append(
            f"The weakest centre has {worst.estimate.value:.3f} ({worst.site}, n = {worst.num_images}); alone, the "
            f"weakest has {worst_alone.estimate.value:.3f} ({worst_alone.site}, n = {worst_alone.num_images})."
        )
    parts += _gap(arms, main_arm, fair)
    details = (
        *by_seed_in_words(difference),
        *_centre_by_centre(arms, main_arm, local),
        *_highest(arms, main_arm),
    )
    answer: Literal["yes", "partly", "no", "unclear"]
    if difference.sign == 0 or not difference.steady:
        answer = "unclear"
    elif difference.sign < 0:
        answer = "no"
    else:
        answer = "yes" if floor >= 0 else "partly"
    return Verdict(answer, " ".join(parts), caution, details)


def judge_apart(arms: PatientBootstrap, against: str) -> Verdict:
    """Say how arms without a federation among them stand to one of them; whether training together helps is not known.

    Args:
        arms: All of them.
        against: The arm the others are compared with; where it was not run, nothing is compared.
    """
    if not arms.sites:
        return Verdict("unknown", f"{no_mean_in_words(arms, 'arm')}, so the arms cannot be compared.", "")
    sentence = "No federation was run, so nothing is said of training together."
    mean = arms.mean(against) if against in arms.names else None
    if mean is None:
        return Verdict("unknown", sentence, limits_in_words(arms))
    differences = {name: arms.paired_difference(name, against) for name in arms.names if name != against}
    return Verdict(
        "unknown",
        f"{sentence} {against} reaches a mean macro-F1 of {score_in_words(mean)} over {count_of_centres(arms)}.",
        limits_in_words(arms),
        tuple(
            f"{name} minus {against}: {signed(found.estimate)}{told_apart(found)}."
            for name, found in differences.items()
            if found is not None
        ),
    )


def _centre_by_centre(arms: PatientBootstrap, main_arm: str, local: str) -> list[str]:
    """Name the centres where training alone is surely better, and how many cannot be told."""
    signs = {
        site: found.sign
        for site in arms.sites
        if (found := arms.paired_difference(main_arm, local, site)) is not None
    }
    worse = [site for site, sign in signs.items() if sign < 0]
    better, open_ = sum(sign > 0 for sign in signs.values()), sum(sign == 0 for sign in signs.values())
    text = f"Centre by centre, it is better at {better} of {len(signs)}, not told apart at {open_}"
    names = f" ({', '.join(worse)})" if worse else ""
    return [f"{text}, worse at {len(worse)}{names}."]


def _gain_unknown(
    arms: PatientBootstrap, main_arm: str, fair: Yardsticks | None, reached: str, caution: str
) -> Verdict:
    """Say that training alone with the main arm's loss and network was not run, and how it stands to other arms."""
    others = [name for name in arms.names if is_alone(name) and name != main_arm]
    differences = {name: arms.paired_difference(main_arm, name) for name in others}
    which = f" with the same loss and network ({fair.local})" if fair is not None and others else ""
    return Verdict(
        "unknown",
        f"{reached}. Training alone{which} was not run, so the gain is not known.",
        caution,
        tuple(
            f"Against {name}, which differs in loss or network too: {signed(found.estimate)}{told_apart(found)}."
            for name, found in differences.items()
            if found is not None
        ),
    )


def _gap(arms: PatientBootstrap, main_arm: str, fair: Yardsticks) -> list[str]:
    """Say how far the main arm goes towards pooled training."""
    if fair.pooled not in arms.names:
        return (
            [f"Which share of the gap to pooled images it closes is not known: {fair.pooled} was not run."]
            if any(map(is_pooled, arms.names))
            else []
        )
    gap = arms.gap_closed(main_arm, fair.local, fair.pooled)
    if gap.share is None:
        return [f"Which share of the gap to pooled images it closes cannot be said: {gap.reason}."]
    return [
        f"Of the gap from training alone to one model on pooled images it closes {format_share(gap.share)}."
    ]


def _highest(arms: PatientBootstrap, main_arm: str) -> list[str]:
    """Name the highest federated arm where it is another one."""
    means = {name: mean.value for name in arms.names if not is_yardstick(name) and (mean := arms.mean(name))}
    best = max(means, key=lambda name: (means[name], name), default=main_arm)
    difference = arms.paired_difference(best, main_arm)
    if best == main_arm or difference is None:
        return []
    return [
        f"Highest of {len(means)} federated arms is {best} with {means[best]:.3f}, {signed(difference.estimate)} "
        f"against {main_arm}{told_apart(difference)}; it was picked after looking, which flatters it."
    ]
