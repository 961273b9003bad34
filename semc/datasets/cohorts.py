"""The cohorts this software knows, and which of them a folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import commonpath
from pathlib import Path

import pandas as pd

from semc.datasets.african_planes import AFRICAN_PLANES
from semc.datasets.camus import CAMUS
from semc.datasets.cohort_table import CentreKind, CentreRule, CohortOptions, CohortReader, CohortTable
from semc.datasets.csv_manifest import MANIFEST
from semc.datasets.fetal_planes import FETAL_BRAIN_PLANES, FETAL_PLANES
from semc.datasets.fpus23 import FPUS23
from semc.datasets.lp2025 import LP2025
from semc.datasets.phantom.write import DESCRIPTION
from semc.datasets.pocus_folder import POCUS
from semc.datasets.pocus_repository import POCUS_REPOSITORY
from semc.exit_codes import ExitCode, SemcError

COHORTS = {
    reader.name: reader
    for reader in (
        FETAL_BRAIN_PLANES,
        POCUS,
        MANIFEST,
        FPUS23,
        CAMUS,
        AFRICAN_PLANES,
        FETAL_PLANES,
        POCUS_REPOSITORY,
        LP2025,
    )
}
"""Name to reader, in the order in which a folder is tried: its own table comes before the layout of its folders."""

_WEAKNESS: tuple[CentreKind, ...] = ("real", "device", "acquisition", "synthetic")
"""Kinds of centres from the strongest claim to the weakest."""


def read_cohort_table(
    source: Path, name: str | None = None, options: CohortOptions | None = None
) -> CohortTable:
    """Read a folder as the named cohort, or as the first whose layout it has; the phantom's is synthetic.

    Raises:
        SemcError: DATA_NOT_FOUND (no folder, or no known layout), USAGE (no such cohort or task), and what the
            cohort's reader refuses.
    """
    options = options or CohortOptions()
    reader = _reader(source, name)
    if options.task is not None and options.task not in reader.tasks:
        raise SemcError(
            ExitCode.USAGE,
            f"The cohort {reader.name} has no task '{options.task}'.",
            f"choose one of: {', '.join(reader.tasks)}" if reader.tasks else "leave --task out",
        )
    table = reader.read(source, options)
    return table.as_synthetic() if (source / DESCRIPTION).is_file() else table


def _reader(source: Path, name: str | None) -> CohortReader:
    if name is not None and name not in COHORTS:
        raise SemcError(
            ExitCode.USAGE, f"There is no cohort '{name}'.", f"choose one of: {', '.join(COHORTS)}"
        )
    if not source.is_dir():
        raise SemcError(ExitCode.DATA_NOT_FOUND, "The source folder does not exist.", "correct the path")
    readers = COHORTS.values() if name is None else [COHORTS[name]]
    found = next((reader for reader in readers if reader.recognise(source)), None)
    if found is None:
        raise SemcError(
            ExitCode.DATA_NOT_FOUND,
            "The source folder has no manifest.csv, no index.csv and no known layout."
            if name is None
            else f"The source folder does not have the layout of {name}.",
            "point to the folder the download was unpacked into; layouts: semc/datasets/README.md",
        )
    return found


def join_tables(tables: Sequence[CohortTable]) -> CohortTable:
    """Join cohorts on the classes they share; each keeps its patients and the names of its default centres.

    Rows are numbered anew, from 1 in the order given. The joined centres are called by the weakest claim of all.

    Raises:
        SemcError: USAGE where they share fewer than two classes.
    """
    if len(tables) == 1:
        return tables[0]
    kept = [table.filtered() for table in tables]
    shared = set.intersection(*(set(table.images["label"]) for table in kept))
    if len(shared) < 2:
        raise SemcError(
            ExitCode.USAGE,
            f"The sources share {len(shared)} class: they cannot be joined.",
            "choose tasks with the same class names",
        )
    root = Path(commonpath([table.root.resolve() for table in kept]))
    parts = []
    for place, table in enumerate(kept, start=1):
        rule = table.centres[0]
        images = table.images.assign(centre=table.centre_of(rule), split=table.split_of(rule))
        images = images[images["label"].isin(shared)]
        prefix = table.root.resolve().relative_to(root).as_posix()
        groups = images["group"] if "group" in images else pd.Series("", index=images.index)
        named = f"{place}-{table.cohort}/" + groups
        parts.append(
            images.assign(
                file=f"{prefix}/" + images["file"], group=named.where(groups != "", ""), cohort=table.cohort
            )
        )
    joined = pd.concat(parts, ignore_index=True).fillna("")
    joined.index = pd.RangeIndex(1, len(joined) + 1)
    kind = max((table.centres[0].kind for table in kept), key=_WEAKNESS.index)
    return CohortTable(
        cohort=" + ".join(table.cohort for table in kept),
        root=root,
        images=joined,
        centres=(CentreRule(("centre",), kind), CentreRule(("cohort",), "acquisition")),
        licence="; ".join(dict.fromkeys(table.licence for table in kept)),
        notes=tuple(dict.fromkeys(note for table in kept for note in table.notes)),
        synthetic=any(table.synthetic for table in kept),
    )
