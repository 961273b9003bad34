"""What every cohort reader returns: one table of images under our column names, and what may name its centres.

The table holds names and numbers only; no image is opened to make it. Further columns are facts of the source
(machine, operator, pose, ...) that centres and filters may be made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pandas as pd

from semc.exit_codes import ExitCode, SemcError

CentreKind = Literal["real", "device", "acquisition", "synthetic"]
"""What a centre honestly is: a hospital, a machine or operator, a way of scanning, or a partition we made."""
ViewSource = Literal["tag", "folder"]
CENTRE_JOIN = " x "


@dataclass(frozen=True)
class CentreRule:
    """One way to name the centres of a cohort.

    Attributes:
        columns: Columns whose values, joined by " x ", name the centre; none = the source has no centres.
        kind: What such a centre honestly is.
        pool_small: Put centres too small for a site into one pooled site instead of leaving them out.
        split_column: Column that decides the split inside such a centre, where patients cannot.
        split_values: Value of `split_column` to split; others stay open.
    """

    columns: tuple[str, ...] = ()
    kind: CentreKind = "synthetic"
    pool_small: bool = False
    split_column: str = ""
    split_values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CohortTable:
    """A source read as a table.

    Attributes:
        cohort: Name of the cohort's reader.
        task: What the labels tell, where the cohort has several tasks; else empty.
        root: Folder that `file` is relative to.
        images: One row per image: `file`, `label` and, where known, `group`, `split`, `acquisition`, `device`,
            `frame`; then facts. The index is the row number for messages.
        centres: Ways to name the centres; the first is the default.
        licence: As the source states it.
        where: Column to the one value kept, unless the user filters otherwise.
        notes: What a user must know before believing a figure.
        synthetic: Drawn by the phantom, whatever the layout says.
    """

    cohort: str
    root: Path
    images: pd.DataFrame
    centres: tuple[CentreRule, ...] = (CentreRule(),)
    licence: str = "unknown"
    task: str = ""
    where: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    synthetic: bool = False

    def as_synthetic(self) -> CohortTable:
        """Return the table marked as the phantom's: no centre of it is real."""
        return replace(
            self,
            centres=tuple(replace(rule, kind="synthetic") for rule in self.centres),
            licence="synthetic images of this software",
            notes=("synthetic phantom: for testing methods, nothing clinical",),
            synthetic=True,
        )

    def filtered(self, where: Mapping[str, str] | None = None) -> CohortTable:
        """Return the rows that a filter keeps; None or empty = the cohort's own filter.

        Raises:
            SemcError: USAGE for a column the table does not have.
        """
        images = self.images
        for column, value in (where or self.where).items():
            self._must_have(column)
            images = images[images[column] == value]
        return replace(self, images=images)

    def centre_rule(self, columns: Sequence[str] = ()) -> CentreRule:
        """Return the rule of these columns, or the default rule without them.

        Columns that no rule of the cohort names are a way of scanning at most.

        Raises:
            SemcError: USAGE for a column the table does not have.
        """
        if not columns:
            return self.centres[0]
        for column in columns:
            self._must_have(column)
        known = next((rule for rule in self.centres if rule.columns == tuple(columns)), None)
        return known or CentreRule(tuple(columns), "synthetic" if self.synthetic else "acquisition")

    def centre_of(self, rule: CentreRule) -> pd.Series:
        """Return each row's centre under a rule; empty where the rule has no columns."""
        if not rule.columns:
            return pd.Series("", index=self.images.index, dtype=str)
        return self.images[list(rule.columns)].astype(str).agg(CENTRE_JOIN.join, axis=1)

    def split_of(self, rule: CentreRule) -> pd.Series:
        """Return each row's split: the source's, or the one that the rule's column decides; "" = open."""
        if rule.split_column:
            return self.images[rule.split_column].map(dict(rule.split_values)).fillna("")
        if "split" in self.images:
            return self.images["split"]
        return pd.Series("", index=self.images.index, dtype=str)

    def _must_have(self, column: str) -> None:
        if column not in self.images:
            raise SemcError(
                ExitCode.USAGE, f"The table has no column '{column}'.", "name a column of its header"
            )


@dataclass(frozen=True)
class CohortOptions:
    """What a user may choose of a cohort.

    Attributes:
        task: What the labels tell; None = the cohort's default.
        view_source: FPUS23's views: from the frame's tag, or from the sweep in the stream's name.
    """

    task: str | None = None
    view_source: ViewSource = "tag"


@dataclass(frozen=True)
class CohortReader:
    """One known layout.

    Attributes:
        name: As `--cohort` calls it.
        recognise: Tells whether a folder has this layout.
        read: Reads such a folder.
        tasks: What the labels can tell; the first is the default. Empty = one task.
    """

    name: str
    recognise: Callable[[Path], bool]
    read: Callable[[Path, CohortOptions], CohortTable]
    tasks: tuple[str, ...] = ()


def table_from(records: Sequence[Mapping[str, object]], first_row: int = 1) -> pd.DataFrame:
    """Return records as a table of strings, numbered from `first_row`.

    Raises:
        SemcError: DATA_NOT_FOUND where there is none.
    """
    if not records:
        raise SemcError(
            ExitCode.DATA_NOT_FOUND,
            "The source lists no image for this task.",
            "choose another task, or complete the download",
        )
    images = pd.DataFrame.from_records(list(records)).astype(str)
    images.index = pd.RangeIndex(first_row, first_row + len(images))
    return images
