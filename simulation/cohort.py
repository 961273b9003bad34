"""A source of images as one cohort: which rows, whose patients, at which centre.

A source is a folder with `index.csv` or `manifest.csv`, or with LP2025 folders. A table's own names are
mapped by a rule: found by the table's header, or given by the request. Patient keys are unique in the
whole cohort unless the rule says that they restart at each centre; a patient seen at several centres stays
where most of its images are, so that no patient trains one site and tests another.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

import pandas as pd

from semc.config.site import SiteDataConfig
from semc.datasets.duplicates import merge_identical
from semc.datasets.lp2025 import is_lp2025, read_lp2025
from semc.datasets.manifest import read_table, rename_columns, rows_of_table
from semc.datasets.ontology import Ontology
from semc.datasets.sample import SourceRow
from semc.exit_codes import ExitCode, SemcError

TABLES = ("manifest.csv", "index.csv")
CENTRE_JOIN = " x "
CentreKind = Literal["real", "device", "acquisition", "synthetic"]
ValueT = TypeVar("ValueT", int, str)


@dataclass(frozen=True)
class CohortRule:
    """How a table names rows, centres and patients.

    Attributes:
        marks: Columns that identify a known table.
        column_map: Our column name to the table's.
        where: Column to the one value kept.
        centre_columns: Columns whose values, joined by " x ", name the centre.
        centre_kind: What a centre of this table honestly is.
        pool_small: Put centres too small for a site into one pooled site instead of leaving them out.
        groups_restart: Patient keys are unique within a centre only.
    """

    marks: frozenset[str] = frozenset()
    column_map: dict[str, str] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    centre_columns: tuple[str, ...] = ()
    centre_kind: CentreKind = "real"
    pool_small: bool = False
    groups_restart: bool = False


KNOWN_RULES = (
    CohortRule(
        marks=frozenset({"machine", "operator", "core"}),
        column_map={"device": "machine"},
        where={"core": "1"},
        centre_columns=("machine", "operator"),
        centre_kind="device",
    ),
    CohortRule(
        marks=frozenset({"source_id", "probe"}),
        column_map={"device": "probe"},
        centre_columns=("source_id",),
        centre_kind="acquisition",
        pool_small=True,
    ),
    CohortRule(marks=frozenset({"site"}), centre_columns=("site",)),
)
"""Tables known by their header: fetal standard planes, point-of-care lung frames, manifests with sites."""


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
    """

    root: Path
    rows: tuple[SourceRow, ...]
    classes: tuple[str, ...]
    rule: CohortRule
    ungrouped: frozenset[int]
    num_left_out: int

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


def rule_of(table: pd.DataFrame) -> CohortRule:
    """Return the first known rule whose marks a table has, else a rule without centres."""
    return next((rule for rule in KNOWN_RULES if rule.marks <= set(table.columns)), CohortRule())


def read_cohort(
    source: Path,
    *,
    centre_columns: Sequence[str] = (),
    where: dict[str, str] | None = None,
    classes: Sequence[str] | None = None,
    allow_ungrouped: bool = False,
) -> Cohort:
    """Read a folder of images as one cohort.

    Args:
        source: Folder with manifest.csv or index.csv, or with {train,test}/<class>/<file>.
        centre_columns: Columns that name the centre, instead of the known rule's.
        where: Column to the value kept, instead of the known rule's.
        classes: Keep only these labels; None = all.
        allow_ungrouped: Accept images without a patient or stream key.

    Raises:
        SemcError: DATA_NOT_FOUND, MANIFEST_INVALID, SPLIT_LEAK, LABEL_UNKNOWN, DATA_UNREADABLE, or USAGE for
            a centre or filter column the table does not have.
    """
    table_file = next((source / name for name in TABLES if (source / name).is_file()), None)
    if table_file is None:
        return _folders(source, classes, allow_ungrouped)
    table = read_table(table_file)
    known = rule_of(table)
    rule = replace(
        known,
        centre_columns=tuple(centre_columns) or known.centre_columns,
        where=dict(where) if where else known.where,
    )
    for column in (*rule.centre_columns, *rule.where):
        if column not in table:
            raise SemcError(
                ExitCode.USAGE, f"The table has no column '{column}'.", "name a column of its header"
            )
    for column, value in rule.where.items():
        table = table[table[column] == value]
    centre_of = _centres(table, rule.centre_columns)
    settings = SiteDataConfig(
        root=source, manifest=table_file.name, column_map=rule.column_map, allow_ungrouped=allow_ungrouped
    )
    ours = rename_columns(table, settings.column_map).assign(site="")
    if rule.groups_restart:
        ours["group"] = [
            f"{centre_of[int(row)]}/{group}" for row, group in zip(ours.index, ours["group"], strict=True)
        ]
    names, ontology = _ontology(sorted(set(ours["label"])), classes)
    plain = settings.model_copy(update={"column_map": {}})
    rows = [replace(row, centre=centre_of[row.index]) for row in rows_of_table(ours, plain, ontology)]
    return _cohort(source, rows, names, rule)


def _folders(source: Path, classes: Sequence[str] | None, allow_ungrouped: bool) -> Cohort:
    if not is_lp2025(source):
        raise SemcError(
            ExitCode.DATA_NOT_FOUND,
            "The source folder has no manifest.csv, no index.csv and no train and test folders.",
            "point to a folder with one of them",
        )
    settings = SiteDataConfig(root=source, format="lp2025", allow_ungrouped=allow_ungrouped)
    found = sorted({entry.name for entry in source.glob("*/*") if entry.is_dir() and entry.name[0] != "."})
    names, ontology = _ontology(found, classes)
    return _cohort(source, read_lp2025(settings, ontology), names, CohortRule(centre_kind="synthetic"))


def _ontology(found: list[str], classes: Sequence[str] | None) -> tuple[tuple[str, ...], Ontology]:
    names = tuple(classes) if classes is not None else tuple(found)
    return names, Ontology(names, ignored=[name for name in found if name not in names])


def _centres(table: pd.DataFrame, columns: Sequence[str]) -> dict[int, str]:
    return {
        int(number): CENTRE_JOIN.join(str(cells[column]) for column in columns)
        for number, cells in zip(table.index, table.to_dict("records"), strict=True)
    }


def _cohort(root: Path, rows: Sequence[SourceRow], classes: tuple[str, ...], rule: CohortRule) -> Cohort:
    ungrouped = frozenset(row.index for row in rows if not row.group)
    grouped = [row if row.group else replace(row, group=f"image {row.index}") for row in rows]
    unique = merge_identical(grouped, ungrouped=bool(ungrouped))
    seen: dict[str, list[str]] = defaultdict(list)
    for row in unique.rows:
        seen[row.group].append(row.centre)
    home = {group: _most(centres) for group, centres in seen.items()}
    kept = tuple(row for row in unique.rows if row.centre == home[row.group])
    return Cohort(root.resolve(), kept, classes, rule, ungrouped, len(rows) - len(kept))


def _most(values: Iterable[ValueT]) -> ValueT:
    """Return the most frequent value; among equals the smallest."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))
