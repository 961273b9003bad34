"""Sources of images as one cohort: which rows, whose patients, at which centre.

The cohorts' own readers give a table; here its rows are checked, labelled and made free of contradictions.
Patient keys are unique in the whole cohort; a patient seen at several centres stays where most of its images
are, so that no patient trains one site and tests another.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pandas as pd

from semc.config.site import SiteDataConfig
from semc.datasets.cohort_table import CENTRE_JOIN, CentreRule, CohortOptions, CohortTable
from semc.datasets.cohorts import join_tables, read_cohort_table
from semc.datasets.duplicates import merge_identical
from semc.datasets.identical_pictures import identical_pictures
from semc.datasets.manifest import rows_of_table
from semc.datasets.ontology import Ontology
from semc.datasets.sample import SourceRow
from semc.datasets.stills import write_stills

__all__ = ["CENTRE_JOIN", "Cohort", "read_cohort", "read_tables"]

_HELD_OUT_FIRST = ("test", "validation", "train", None)
ValueT = TypeVar("ValueT", int, str)


@dataclass(frozen=True)
class Cohort:
    """All rows of a source, labelled by name through `classes`.

    Attributes:
        root: Folder the images lie in.
        rows: The images; `centre` is the centre's name, empty where the source has none.
        classes: Class names by label.
        rule: How the centres came about.
        ungrouped: Numbers of the rows without a patient key; each counts as a patient of its own.
        num_left_out: Rows of patients seen at a second centre, contradictory copies.
        table: Where the rows come from.
    """

    root: Path
    rows: tuple[SourceRow, ...]
    classes: tuple[str, ...]
    rule: CentreRule
    ungrouped: frozenset[int]
    num_left_out: int
    table: CohortTable

    def patients(self) -> pd.DataFrame:
        """Return the table of patients: group, label (class of most images), centre, num_images."""
        rows_of: dict[str, list[SourceRow]] = defaultdict(list)
        for row in self.rows:
            rows_of[row.group].append(row)
        return pd.DataFrame(
            [
                (group, self.classes[_most(row.label for row in rows)], rows[0].centre, len(rows))
                for group, rows in sorted(rows_of.items())
            ],
            columns=["group", "label", "centre", "num_images"],
        )


def read_tables(
    sources: Sequence[Path], cohort: str | None = None, options: CohortOptions | None = None
) -> CohortTable:
    """Read one source, or join several on their shared classes; `cohort` and `options` hold for each."""
    return join_tables([read_cohort_table(source, cohort, options) for source in sources])


def read_cohort(
    source: Path | CohortTable,
    *,
    centre_columns: Sequence[str] = (),
    where: dict[str, str] | None = None,
    classes: Sequence[str] | None = None,
    allow_ungrouped: bool = False,
    stills: Path | None = None,
) -> Cohort:
    """Read a folder of images, or a table of :func:`read_tables`, as one cohort.

    Args:
        source: Folder in any known layout, or its table.
        centre_columns: Columns that name the centre, instead of the cohort's default.
        where: Column to the value kept, instead of the cohort's default.
        classes: Keep only these labels; None = all.
        allow_ungrouped: Accept images without a patient or stream key.
        stills: Folder for the pictures of files that a site does not read itself (NIfTI, DICOM, ...).

    Raises:
        SemcError: DATA_NOT_FOUND, MANIFEST_INVALID, SPLIT_LEAK, LABEL_UNKNOWN, DATA_UNREADABLE, or USAGE for
            a centre or filter column the table does not have.
    """
    table = (read_cohort_table(source) if isinstance(source, Path) else source).filtered(where)
    rule = table.centre_rule(centre_columns)
    if stills is not None:
        if classes is not None:
            table = replace(table, images=table.images[table.images["label"].isin(classes)])
        table = write_stills(table, stills)
    centre_of = table.centre_of(rule)
    images = table.images.assign(site="", split=table.split_of(rule))
    settings = SiteDataConfig(root=table.root, allow_ungrouped=allow_ungrouped)
    found = sorted(set(images["label"]))
    names = tuple(classes) if classes is not None else tuple(found)
    ontology = Ontology(names, ignored=[name for name in found if name not in names])
    rows = [replace(row, centre=centre_of[row.index]) for row in rows_of_table(images, settings, ontology)]
    return _cohort(table, rows, names, rule)


def _cohort(
    table: CohortTable, rows: Sequence[SourceRow], classes: tuple[str, ...], rule: CentreRule
) -> Cohort:
    ungrouped = frozenset(row.index for row in rows if not row.group)
    grouped = [row if row.group else replace(row, group=f"image {row.index}") for row in rows]
    unique = merge_identical(grouped, identical_pictures(grouped), ungrouped=bool(ungrouped))
    seen: dict[str, list[str]] = defaultdict(list)
    for row in unique.rows:
        seen[row.group].append(row.centre)
    home = {group: _most(centres) for group, centres in seen.items()}
    kept = [row for row in unique.rows if row.centre == home[row.group]]
    kept = _without_merged_leaks(grouped, kept)
    return Cohort(table.root.resolve(), tuple(kept), classes, rule, ungrouped, len(rows) - len(kept), table)


def _without_merged_leaks(listed: Sequence[SourceRow], merged: Sequence[SourceRow]) -> list[SourceRow]:
    """Leave out training rows of patients whom a shared image joins with a held-out patient.

    The source's own split was disjoint by its patient numbers; the copies show that the numbers were not. Where
    the source itself puts one number into two splits nothing is repaired: the site refuses it.
    """
    own_splits: dict[str, set[str | None]] = defaultdict(set)
    for row in listed:
        own_splits[row.group].add(row.split)
    group_of = {row.index: row.group for row in listed}
    found: dict[str, set[str | None]] = defaultdict(set)
    for row in merged:
        if len(own_splits[group_of[row.index]]) == 1:
            found[row.group].add(row.split)
    chosen = {
        group: min(splits, key=_HELD_OUT_FIRST.index) for group, splits in found.items() if len(splits) > 1
    }
    return [row for row in merged if row.group not in chosen or row.split == chosen[row.group]]


def _most(values: Iterable[ValueT]) -> ValueT:
    """Return the most frequent value; among equals the smallest."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))
