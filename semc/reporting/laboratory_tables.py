"""The tables of arms, conditions and centres, made in one place for the page and for Markdown.

An arm is compared with training alone, with plain FedAvg and with any arm asked for, a condition of a left-out centre
with the unadapted model. All figures of a table come from the same draws of patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from semc.reporting.bootstrap import Metric, PatientBootstrap
from semc.reporting.calibration import NUM_BINS, mean_ece
from semc.reporting.cross_site import AWAY, HOME, CrossSiteMatrix
from semc.reporting.estimate import GapClosed
from semc.reporting.groups import (
    Groups,
    is_alone,
    is_pooled,
    is_yardstick,
    sites_in_every_group,
    unadapted,
)
from semc.reporting.text_table import (
    ABSENT,
    DOWN,
    UP,
    TextTable,
    format_estimate,
    format_paired,
    format_score,
    format_share,
    format_spread,
)
from semc.reporting.thin_sites import MIN_RANKED_PATIENTS, note_on_thin, thin_sites
from semc.reporting.yardsticks import Yardsticks, measured_pairs, missing_pairs

_BRACKETS: Final = "In brackets: 95 % interval over patients."
_INTERVAL: Final = f"{_BRACKETS} {UP} and {DOWN} mark a difference whose interval leaves out zero."
MAJORITY: Final = "always the commonest class"
_IN_WORDS: Final[Mapping[Metric, str]] = {
    "macro_f1": "Macro-F1",
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
}


@dataclass(frozen=True)
class SiteCounts:
    """What a site brings to the study."""

    num_train_images: int
    num_test_images: int
    num_train_patients: int | None
    """None, as below, where patients are not known."""
    num_test_patients: int | None
    class_counts: Mapping[str, int]
    """Class name to images, all splits together."""
    train_class_counts: Mapping[str, int] = field(default_factory=dict)
    """Class name to training images; empty where not known."""


def data_table(site_counts: Mapping[str, SiteCounts], classes: Sequence[str]) -> TextTable:
    """Return images, patients and class counts of every site side by side."""
    untested = [site for site, counts in site_counts.items() if not counts.num_test_images]
    unscored = f" Without a test image, so in no score: {', '.join(untested)}." if untested else ""
    return TextTable(
        title="What each centre has",
        caption="Images of each class: training, validation and test together. 0 = the centre has none of it."
        f"{unscored}",
        columns=("centre", "train images", "train patients", "test images", "test patients", *classes),
        rows=tuple(
            (
                site,
                str(counts.num_train_images),
                _count(counts.num_train_patients),
                str(counts.num_test_images),
                _count(counts.num_test_patients),
                *(str(counts.class_counts.get(name, 0)) for name in classes),
            )
            for site, counts in site_counts.items()
        ),
    )


def arms_table(
    arms: PatientBootstrap, references: Sequence[str], yardsticks: Mapping[str, Yardsticks]
) -> TextTable:
    """Return every arm's mean and worst site, its differences and the share of the gap it closes.

    Args:
        arms: Over :func:`~semc.reporting.groups.arm_groups`.
        references: Arms with a column of differences against them; those that were not run have none.
        yardsticks: Arm to what its share of the gap is measured by.
    """
    names = arms.names
    references = [name for name in dict.fromkeys(references) if name in names]
    gaps = _gaps_closed(arms, yardsticks)
    pairs = measured_pairs(yardsticks, names)
    whole = [name for name in names if is_pooled(name)]
    rows = []
    for name in names:
        mean, worst = arms.mean(name), arms.worst(name)
        rows.append(
            (
                name,
                str(arms.num_seeds(name)),
                format_estimate(mean),
                format_spread(mean.spread if mean is not None else None),
                f"{worst.site} {format_estimate(worst.estimate)}, n = {worst.num_images}"
                if worst
                else ABSENT,
                *(_against(arms, name, other) for other in references),
                *([format_share(gaps[name].share) if name in gaps else ABSENT] if _has_gap(names) else []),
            )
        )
    return TextTable(
        title="Arms",
        caption=" ".join(
            [
                f"Macro-F1, mean over {_count_of_centres(arms)} and the seeds. {_INTERVAL}",
                f"Worst: of the centres with at least {MIN_RANKED_PATIENTS} test patients.",
                *([f"{', '.join(whole)}: all centres' steps, one after the other."] if whole else []),
                *_gap_captions(arms, yardsticks, references, gaps),
                *_thin(arms.thin_sites),
            ]
        ),
        columns=(
            "arm",
            "seeds",
            "mean macro-F1",
            "lowest to highest seed",
            "worst centre",
            *(f"against {name}" for name in references),
            *([_gap_heading(pairs)] if _has_gap(names) else []),
        ),
        rows=tuple(rows),
    )


def differences_table(arms: PatientBootstrap, reference: str) -> TextTable:
    """Return every arm's paired difference to one arm, at every site and in the mean.

    Args:
        arms: Over :func:`~semc.reporting.groups.arm_groups`.
        reference: One of them; it has no row.
    """
    sites = arms.all_sites
    return TextTable(
        title=f"Every arm minus {reference}, centre by centre",
        caption=" ".join(
            [
                f"Macro-F1 of the arm minus that of {reference} on the same patients, mean over seeds. {_INTERVAL}",
                f"{ABSENT} = not scored by both, or too few patients.",
                *_thin(arms.thin_sites),
            ]
        ),
        columns=("arm", *_sites_in_words(arms), f"mean over {len(arms.sites)}"),
        rows=tuple(
            (
                name,
                *(format_paired(arms.paired_difference(name, reference, site)) for site in sites),
                format_paired(arms.paired_difference(name, reference)),
            )
            for name in arms.names
            if name != reference
        ),
    )


def _sites_in_words(groups: PatientBootstrap) -> list[str]:
    """Return every site with its test images and patients, as the heading of a column."""
    return [
        f"{site} (n = {groups.num_images(site)}, {groups.num_patients(site)} patients)"
        for site in groups.all_sites
    ]


def _has_gap(names: Sequence[str]) -> bool:
    """Whether anything was run that a gap could lie between, and anything that could close it."""
    return any(map(is_alone, names)) and any(map(is_pooled, names)) and not all(map(is_yardstick, names))


def _gaps_closed(arms: PatientBootstrap, yardsticks: Mapping[str, Yardsticks]) -> dict[str, GapClosed]:
    """Return the share of every arm whose own yardsticks were run."""
    return {
        name: arms.gap_closed(name, pair.local, pair.pooled)
        for pair, measured in measured_pairs(yardsticks, arms.names).items()
        for name in measured
    }


def _gap_heading(pairs: Mapping[Yardsticks, Sequence[str]]) -> str:
    if len(pairs) != 1:
        return "gap closed"
    (pair,) = pairs
    return f"gap from {pair.local} to {pair.pooled} closed"


def _gap_captions(
    arms: PatientBootstrap,
    yardsticks: Mapping[str, Yardsticks],
    references: Sequence[str],
    gaps: Mapping[str, GapClosed],
) -> list[str]:
    """Say which pair measures which arm, why a share is lacking, and which arms have no pair of their own."""
    if not _has_gap(arms.names):
        return []
    pairs = measured_pairs(yardsticks, arms.names)
    captions = [
        f"Gap closed by {', '.join(measured)}: of the way from {pair.local} to {pair.pooled}."
        for pair, measured in pairs.items()
        if len(pairs) > 1
    ]
    captions += [
        f"Gap closed: none, {reason}."
        for reason in dict.fromkeys(gap.reason for gap in gaps.values() if gap.reason)
    ]
    alone = next(filter(is_alone, references), None)
    for pair, measured in missing_pairs(yardsticks, arms.names).items():
        missing = pair.missing(arms.names)
        captions.append(
            f"Gap closed: {ABSENT} for {', '.join(measured)}, as {' and '.join(missing)}, with the same loss and "
            f"network, {'was' if len(missing) == 1 else 'were'} not run"
            + (
                f"; against {alone} the loss or network differs too."
                if pair.local != alone and alone
                else "."
            )
        )
    return captions


def sites_table(
    groups: PatientBootstrap, what: str, majority: Mapping[str, float] | None = None
) -> TextTable:
    """Return every group's score at every site.

    Args:
        groups: Arms or conditions.
        what: Which of the two, for the heading.
        majority: Site to what always answering the commonest class would score; None for no such row.
    """
    sites = groups.all_sites
    score = _IN_WORDS[groups.metric]
    return TextTable(
        title=f"Every {what} at every centre" + ("" if groups.metric == "macro_f1" else f": {score.lower()}"),
        caption=" ".join(
            [
                f"{score}, mean over seeds. {_BRACKETS} No bracket: too few patients. {ABSENT} = not scored.",
                *_thin(groups.thin_sites),
            ]
        ),
        columns=(what, *_sites_in_words(groups)),
        rows=(
            *((name, *(format_estimate(groups.site(name, site)) for site in sites)) for name in groups.names),
            *([(MAJORITY, *(format_score(majority.get(site)) for site in sites))] if majority else []),
        ),
    )


def left_out_table(conditions: PatientBootstrap) -> TextTable:
    """Return every condition at every left-out centre, its mean and its difference to no adaptation."""
    sites = conditions.all_sites
    rows = []
    for name in conditions.names:
        mean, reference = conditions.mean(name), unadapted(name, conditions.names)
        difference = conditions.paired_difference(name, reference) if reference is not None else None
        rows.append(
            (
                name,
                *(format_estimate(conditions.site(name, site)) for site in sites),
                format_estimate(mean),
                format_spread(mean.spread if mean is not None else None),
                format_paired(difference),
                f"{100 * difference.share_above_zero:.0f} %" if difference is not None else ABSENT,
            )
        )
    return TextTable(
        title="A centre that took no part",
        caption=" ".join(
            [
                f"Macro-F1 at each left-out centre, mean over seeds. {_INTERVAL}",
                "Last column: share of the draws in which the condition is better than no adaptation.",
                *_thin(conditions.thin_sites),
            ]
        ),
        columns=(
            "condition",
            *(f"{site} (n = {conditions.num_images(site)})" for site in sites),
            f"mean over {len(conditions.sites)}",
            "lowest to highest seed",
            "against none",
            "draws above",
        ),
        rows=tuple(rows),
    )


def calibration_table(groups: Groups, what: str) -> TextTable:
    """Return the calibration error of every group at every site."""
    sites = tuple(dict.fromkeys(record.test_site for records in groups.values() for record in records))
    thin = thin_sites(record for records in groups.values() for record in records)
    shared = sites_in_every_group(groups) - set(thin)
    rows = []
    for name, records in groups.items():
        by_site = {site: [record for record in records if record.test_site == site] for site in sites}
        errors = {site: mean_ece(found) if found else None for site, found in by_site.items()}
        known = [error for site, error in errors.items() if error is not None and site in shared]
        mean = sum(known) / len(known) if known else None
        rows.append((name, *map(format_score, errors.values()), format_score(mean)))
    return TextTable(
        title=f"Calibration error, {what} by {what}",
        caption=" ".join(
            [
                f"Expected calibration error of the called class, {NUM_BINS} equal bins, mean over seeds (Guo et al.,",
                "ICML 2017): how far, on average, the stated probability is from the share that is right. 0 is best;",
                "with few images most of it is chance, and upwards. Mean: over the centres that every row has.",
                *_thin(thin),
            ]
        ),
        columns=(what, *sites, "mean"),
        rows=tuple(rows),
    )


def cross_site_table(cross: CrossSiteMatrix) -> TextTable:
    """Return one arm's macro-F1 of every site's model at every site."""
    return TextTable(
        title=f"Every centre's model at every centre: {cross.arm}",
        caption="Macro-F1, mean over seeds. Row: whose model; column: whose test images.",
        columns=("model of", *cross.test_sites),
        rows=tuple(
            (model_site, *map(format_score, row))
            for model_site, row in zip(cross.model_sites, cross.macro_f1, strict=True)
        ),
    )


def away_table(arms: Mapping[str, PatientBootstrap]) -> TextTable:
    """Return what each arm's models lose on other centres' images.

    Args:
        arms: Of :func:`~semc.reporting.cross_site.home_and_away`.
    """
    thin = dict.fromkeys(site for bootstrap in arms.values() for site in bootstrap.thin_sites)
    return TextTable(
        title="What a model loses away from home",
        caption=" ".join(
            [
                "Macro-F1, mean over test centres and seeds: each centre's images answered by its own model, and by",
                f"the models of the others. {_INTERVAL}",
                *_thin(tuple(thin)),
            ]
        ),
        columns=("arm", "own model", "the others' models", "away minus home"),
        rows=tuple(
            (
                name,
                format_estimate(bootstrap.mean(HOME)),
                format_estimate(bootstrap.mean(AWAY)),
                format_paired(bootstrap.paired_difference(AWAY, HOME)),
            )
            for name, bootstrap in arms.items()
        ),
    )


def training_table(training: Mapping[str, Mapping[str, float]]) -> TextTable:
    """Return the parts of every arm's objective in its last round; dashes where an arm has no such part."""
    terms = list(dict.fromkeys(term for by_term in training.values() for term in by_term))
    return TextTable(
        title="What training ended with",
        caption="Parts of the objective in the last round, mean over centres and seeds. alpha: share of the "
        "classification loss; queue_drift_cosine: cosine of old keys and what the new weights make of them.",
        columns=("arm", *terms),
        rows=tuple(
            (arm, *(format_score(by_term.get(term)) for term in terms)) for arm, by_term in training.items()
        ),
    )


def _against(arms: PatientBootstrap, name: str, other: str) -> str:
    return (
        ABSENT
        if other not in arms.names or other == name
        else format_paired(arms.paired_difference(name, other))
    )


def _count_of_centres(groups: PatientBootstrap) -> str:
    """Say over how many centres a mean is, and of how many where some are left out."""
    counted, known = len(groups.sites), len(groups.all_sites)
    return f"{counted} centre{'s' * (counted != 1)}" if counted == known else f"{counted} of {known} centres"


def _thin(sites: Sequence[str]) -> list[str]:
    """Return the note on thin sites as a part of a caption."""
    return [note_on_thin(sites)] if sites else []


def _count(number: int | None) -> str:
    return ABSENT if number is None else str(number)
