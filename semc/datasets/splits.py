"""Train, validation and test by patient: no group ever stands in two splits.

An official split is kept. What it lacks is cut from train, whole groups at a time, class by class from the
rarest: each class gives its share of images, at least one group where it has three, and never its last group
in train.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from semc.config.site import SplitConfig
from semc.datasets.sample import ManifestRow, SourceRow, Split
from semc.exit_codes import ExitCode, SemcError
from semc.seed import derive_seed

_GROUPS_TO_SHARE = 3
"""A class with this many groups in train gives one to a split it would else miss."""


def split_rows(rows: Sequence[SourceRow], split: SplitConfig, num_classes: int) -> list[ManifestRow]:
    """Give every row its split.

    Args:
        rows: Rows, each with a non-empty group.
        split: Fractions of images and the site's own seed.
        num_classes: Number of study classes K.

    Returns:
        The rows in their order, split; the result does not depend on that order.

    Raises:
        SemcError: SPLIT_LEAK where a group stands in two official splits, MANIFEST_INVALID where only some
            rows have a split.
    """
    official = _official_splits(rows)
    counts = _label_counts(rows, num_classes)
    if not official:
        official = dict.fromkeys(counts, "train")
    present = set(official.values())
    pool = [group for group in sorted(counts) if official[group] == "train"]
    total_K = np.sum([counts[group] for group in pool], axis=0) if pool else np.zeros(num_classes)
    fractions: tuple[tuple[Split, float], ...] = (
        ("test", split.test_fraction),
        ("validation", split.validation_fraction),
    )
    for name, fraction in fractions:
        if name in present or fraction == 0:
            continue
        rng = np.random.default_rng(derive_seed(split.seed, "split", name))
        for group in _cut({group: counts[group] for group in pool}, fraction * total_K, rng):
            official[group] = name
            pool.remove(group)
    return [_placed(row, official[row.group]) for row in rows]


def _official_splits(rows: Sequence[SourceRow]) -> dict[str, Split]:
    """Return each group's official split; empty where the source has none."""
    first: dict[str, SourceRow] = {}
    open_row = next((row for row in rows if row.split is None), None)
    if open_row is not None and any(row.split is not None for row in rows):
        raise SemcError(
            ExitCode.MANIFEST_INVALID,
            f"Row {open_row.index} has no split while others have one.",
            "fill the split column in every row, or leave it empty in all",
        )
    if open_row is not None:
        return {}
    for row in rows:
        other = first.setdefault(row.group, row)
        if other.split != row.split:
            raise SemcError(
                ExitCode.SPLIT_LEAK,
                f"Rows {other.index} and {row.index} are one patient or stream (or share an identical file) "
                f"but stand in {other.split} and {row.split}.",
                "give all rows of a group one split",
            )
    return {group: row.split for group, row in first.items() if row.split is not None}


def _label_counts(rows: Sequence[SourceRow], num_classes: int) -> dict[str, NDArray[np.int64]]:
    counts: dict[str, NDArray[np.int64]] = {}
    for row in rows:
        counts.setdefault(row.group, np.zeros(num_classes, dtype=np.int64))[row.label] += 1
    return counts


def _cut(
    counts: dict[str, NDArray[np.int64]], wanted_K: NDArray[np.float64], rng: np.random.Generator
) -> list[str]:
    """Choose groups that hold about `wanted_K` images per class and leave every class in the rest."""
    groups = [sorted(counts)[place] for place in rng.permutation(len(counts))]
    holders_K = np.sum([counts[group] > 0 for group in groups], axis=0) if groups else np.zeros(len(wanted_K))
    got_K = np.zeros(len(wanted_K))
    taken: list[str] = []
    for label in np.argsort(holders_K, kind="stable"):
        for group in groups:
            has_K = counts[group] > 0
            if group in taken or not has_K[label] or np.any(holders_K[has_K] <= 1):
                continue
            nearer = got_K[label] + counts[group][label] / 2 <= wanted_K[label]
            missing = got_K[label] == 0 and holders_K[label] >= _GROUPS_TO_SHARE
            if nearer or missing:
                taken.append(group)
                got_K += counts[group]
                holders_K = holders_K - has_K
    return taken


def _placed(row: SourceRow, split: Split) -> ManifestRow:
    row = replace(row, split=split)
    return ManifestRow(
        row.index, row.path, row.label, row.group, split, row.centre, row.acquisition, row.device, row.frame
    )
