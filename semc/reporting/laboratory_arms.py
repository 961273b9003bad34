"""The table of arms: mean, worst centre, differences to other arms, and the share of the gap each closes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from semc.reporting.bootstrap import PatientBootstrap
from semc.reporting.captions import INTERVAL, caption, count_of_centres
from semc.reporting.estimate import GapClosed
from semc.reporting.groups import is_alone, is_pooled, is_yardstick
from semc.reporting.text_table import (
    ABSENT,
    TextTable,
    format_estimate,
    format_paired,
    format_share,
    format_spread,
)
from semc.reporting.thin_sites import MIN_RANKED_PATIENTS, note_on_thin
from semc.reporting.yardsticks import Yardsticks, measured_pairs, missing_pairs


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
        caption=caption(
            f"Macro-F1, mean over {count_of_centres(arms)} and the seeds. {INTERVAL}",
            f"Worst: of the centres with at least {MIN_RANKED_PATIENTS} test patients.",
            *([f"{', '.join(whole)}: all centres' steps, one after the other."] if whole else []),
            *_gap_captions(arms, yardsticks, gaps),
            _other_than(arms, yardsticks, references),
            note_on_thin(arms.thin_sites),
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


def _against(arms: PatientBootstrap, name: str, other: str) -> str:
    return (
        ABSENT
        if other not in arms.names or other == name
        else format_paired(arms.paired_difference(name, other))
    )


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
    for pair, measured in missing_pairs(yardsticks, arms.names).items():
        missing = pair.missing(arms.names)
        captions.append(
            f"Gap closed: {ABSENT} for {', '.join(measured)}, as {' and '.join(missing)}, with the same loss and "
            f"network, {'was' if len(missing) == 1 else 'were'} not run."
        )
    return captions


def _other_than(
    arms: PatientBootstrap, yardsticks: Mapping[str, Yardsticks], references: Sequence[str]
) -> str:
    """Say which arms differ from the arm of training alone by more than the federation; "" where none does."""
    alone = next(filter(is_alone, references), None)
    if alone is None:
        return ""
    others = [name for name in arms.names if name in yardsticks and yardsticks[name].local != alone]
    if not others:
        return ""
    return f"Against {alone} the loss or network differs too: {', '.join(others)}."
