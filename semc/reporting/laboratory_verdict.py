"""The sentences the laboratory ends with, made from its figures: what holds, what does not, what cannot be told.

An answer is yes or no only where the interval of a paired difference leaves out zero and no seed alone points the
other way. The arm that is judged is named
before anyone looks at the figures; the highest arm is named beside it, as the choice of it is flattered.
"""

from __future__ import annotations

from typing import Literal

from semc.reporting.bootstrap import PatientBootstrap
from semc.reporting.estimate import Difference, Estimate
from semc.reporting.groups import LOCAL, UNADAPTED, is_alone, is_pooled, is_yardstick
from semc.reporting.text_table import format_share
from semc.reporting.thin_sites import MIN_INTERVAL_PATIENTS, MIN_RANKED_PATIENTS, note_on_thin
from semc.reporting.verdict import Verdict
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
        return Verdict("unknown", f"{_without_mean(arms, 'arm')}, so the arms cannot be compared.", "")
    count = f"{len(arms.sites)} centre{'s' if len(arms.sites) != 1 else ''}"
    reached = f"Together ({main_arm}), {count} reach a mean macro-F1 of {_in_words(mean)}"
    local = fair.local if fair is not None and fair.local in arms.names else None
    difference = arms.paired_difference(main_arm, local) if local is not None else None
    alone = arms.mean(local) if local is not None else None
    caution = _caution(arms)
    if fair is None or local is None or difference is None or alone is None:
        return _gain_unknown(arms, main_arm, fair, reached, caution)
    parts = [f"{reached}; each alone ({local}), {_in_words(alone)}. {_paired(difference)}"]
    floor = 0.0
    worst, worst_alone = arms.worst(main_arm), arms.worst(local)
    if worst is not None and worst_alone is not None:
        floor = worst.estimate.value - worst_alone.estimate.value
        parts.append(
            f"The weakest centre has {worst.estimate.value:.3f} ({worst.site}, n = {worst.num_images}); alone, the "
            f"weakest has {worst_alone.estimate.value:.3f} ({worst_alone.site}, n = {worst_alone.num_images})."
        )
    parts += _gap(arms, main_arm, fair)
    details = (*_by_seed(difference), *_centre_by_centre(arms, main_arm, local), *_highest(arms, main_arm))
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
        return Verdict("unknown", f"{_without_mean(arms, 'arm')}, so the arms cannot be compared.", "")
    sentence = "No federation was run, so nothing is said of training together."
    mean = arms.mean(against) if against in arms.names else None
    if mean is None:
        return Verdict("unknown", sentence, _caution(arms))
    count = f"{len(arms.sites)} centre{'s' if len(arms.sites) != 1 else ''}"
    differences = {name: arms.paired_difference(name, against) for name in arms.names if name != against}
    return Verdict(
        "unknown",
        f"{sentence} {against} reaches a mean macro-F1 of {_in_words(mean)} over {count}.",
        _caution(arms),
        tuple(
            f"{name} minus {against}: {_signed(found.estimate)}{_told_apart(found)}."
            for name, found in differences.items()
            if found is not None
        ),
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
            "unknown", f"{_without_mean(conditions, 'condition')}, so nothing can be compared.", ""
        )
    parts = [
        "At a centre that took no part in training, the model with the training centres' mean statistics reaches a "
        "mean macro-F1 of "
        f"{_in_words(mean)} over {len(conditions.sites)} left-out centres."
    ]
    adapted = [name for name in names if name not in (unadapted, local) and _is_adaptation(name, end)]
    changes = [
        f"{name} changes that by {_signed(change.estimate)}{_told_apart(change)}."
        for name in adapted
        if (change := conditions.paired_difference(name, unadapted)) is not None
    ]
    alone = conditions.mean(local) if local in names else None
    against = conditions.paired_difference(unadapted, local) if local in names else None
    if alone is None or against is None:
        parts.append("What such a centre reaches alone was not run.")
        return Verdict("unknown", " ".join(parts), _caution(conditions), tuple(changes))
    parts.append(f"On its own images alone such a centre reaches {_in_words(alone)}. {_paired(against)}")
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
    return Verdict(answer, " ".join(parts), _caution(conditions), (*_by_seed(against), *changes))


def _is_adaptation(name: str, end: str) -> bool:
    """Whether a condition is the main arm's model adapted, no yardstick and no other arm's."""
    return not is_yardstick(name.split(" (", maxsplit=1)[0]) and (
        name.endswith(end) if end else " (" not in name
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
            f"Against {name}, which differs in loss or network too: {_signed(found.estimate)}{_told_apart(found)}."
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
        f"Highest of {len(means)} federated arms is {best} with {means[best]:.3f}, {_signed(difference.estimate)} "
        f"against {main_arm}{_told_apart(difference)}; it was picked after looking, which flatters it."
    ]


def _caution(groups: PatientBootstrap) -> str:
    """Say how far the answer carries."""
    images = sum(map(groups.num_images, groups.sites))
    patients = sum(map(groups.num_patients, groups.sites))
    seeds = {groups.num_seeds(name) for name in groups.names}
    runs = (
        f"{min(seeds)} to {max(seeds)} seeds"
        if len(seeds) > 1
        else f"{max(seeds)} seed{'s' * (max(seeds) != 1)}"
    )
    parts = [f"{images} test images of {patients} patients, {runs}."]
    if min(seeds) == 1:
        parts.append("Where there is one seed, the chance in training is not seen.")
    if groups.thin_sites:
        parts.append(note_on_thin(groups.thin_sites))
    small = [site for site in groups.sites if groups.num_patients(site) < MIN_RANKED_PATIENTS]
    if small:
        parts.append(
            f"No worst centre, with fewer than {MIN_RANKED_PATIENTS} test patients: {', '.join(small)}."
        )
    missing = [site for site in groups.all_sites if site not in (*groups.sites, *groups.thin_sites)]
    if missing:
        parts.append(f"In no mean, as some run lacks it: {', '.join(missing)}.")
    return " ".join(parts)


def _without_mean(groups: PatientBootstrap, what: str) -> str:
    """Say why no site enters a mean."""
    if groups.all_sites and set(groups.all_sites) == set(groups.thin_sites):
        return f"No centre has {MIN_INTERVAL_PATIENTS} test patients"
    return f"No centre with enough test patients was scored by every {what}"


def _in_words(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f} (too few patients for an interval)"
    return f"{estimate.value:.3f} (95 % interval {estimate.low:.3f} to {estimate.high:.3f})"


def _signed(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.3f}"
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


def _paired(difference: Difference) -> str:
    ending = {
        1: "the interval leaves out zero",
        0: "the interval does not leave out zero, so the difference can be chance",
        -1: "the interval lies below zero",
    }[difference.sign]
    turns = "" if difference.steady else " Its sign hangs on the seed, so it is not settled."
    return f"Difference on the same patients: {_signed(difference.estimate)}; {ending}.{turns}"


def _by_seed(difference: Difference) -> list[str]:
    """Say what the seeds alone say."""
    spread = difference.estimate.spread
    return [] if spread is None else [f"Seed by seed the difference is {spread[0]:+.3f} to {spread[1]:+.3f}."]


def _told_apart(difference: Difference) -> str:
    return "" if difference.sign else ", not told apart"
