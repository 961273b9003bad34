"""FETAL_PLANES_DB (Zenodo 3904280): a `;` table with padded cells, image names without `.png`.

Two hospitals, but no column tells them apart: a centre is a machine, an operator, or both, never a hospital.
The official patient-disjoint split is kept. `fetal_brain_planes` is the table of its re-released brain images.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from semc.datasets.cohort_table import CentreRule, CohortOptions, CohortReader, CohortTable
from semc.datasets.csv_manifest import has_columns, table_file
from semc.datasets.manifest import read_table
from semc.exit_codes import ExitCode, SemcError

TABLE = "FETAL_PLANES_DB_data.csv"
IMAGES = "Images"
SPLITS = {"1": "train", "0": "test", "": ""}
_FOLDERS = (".", "FETAL_PLANES_ZENODO")
_TABLES = (TABLE, "metadata.csv")
_MARKS = frozenset({"Image_name", "Patient_num", "Plane", "US_Machine", "Operator"})
_TASKS = {"plane": "Plane", "brain_plane": "Brain_plane"}
_INDEX_MARKS = frozenset({"machine", "operator", "core"})
_LICENCE = "CC BY 4.0, doi 10.5281/zenodo.3904280"


def is_fetal_planes(root: Path) -> bool:
    """Tell whether a folder, or its FETAL_PLANES_ZENODO, has the official table."""
    return any(has_columns(root / folder, _MARKS, _TABLES) for folder in _FOLDERS)


def read_fetal_planes(root: Path, options: CohortOptions) -> CohortTable:
    """Read the official table; task `plane` (default) or `brain_plane` (images that show a brain).

    Raises:
        SemcError: DATA_NOT_FOUND or MANIFEST_INVALID (a Train cell that is neither 1 nor 0).
    """
    folder = next(root / name for name in _FOLDERS if has_columns(root / name, _MARKS, _TABLES))
    table = read_table(next(folder / name for name in _TABLES if (folder / name).is_file()))
    task = options.task or "plane"
    images = table.assign(
        file=[f"{IMAGES}/{with_png(name)}" for name in table["Image_name"]],
        label=table[_TASKS[task]],
        group=table["Patient_num"],
        device=table["US_Machine"],
        split=official_split(table),
    )
    if task == "brain_plane":
        images = images[images["label"] != "Not A Brain"]
    return CohortTable(
        cohort="fetal_planes",
        task=task,
        root=folder,
        images=images,
        centres=(
            CentreRule(("US_Machine",), "device"),
            CentreRule(("Operator",), "device"),
            CentreRule(("US_Machine", "Operator"), "device"),
        ),
        licence=_LICENCE,
        notes=("two hospitals, but no column tells which: a machine or an operator is not a hospital",),
    )


def read_fetal_brain_planes(root: Path, options: CohortOptions) -> CohortTable:
    """Read an index of machine, operator, core and repeats; only core images unless filtered otherwise.

    Raises:
        SemcError: DATA_NOT_FOUND or MANIFEST_INVALID.
    """
    del options
    images = read_table(table_file(root) or root / "index.csv")
    images["device"] = images["machine"]
    return CohortTable(
        cohort="fetal_brain_planes",
        root=root,
        images=images,
        centres=(
            CentreRule(("machine", "operator"), "device"),
            CentreRule(("machine",), "device"),
            CentreRule(("operator",), "device"),
        ),
        licence=_LICENCE,
        where={"core": "1"},
        notes=("a centre is a machine and an operator, not a hospital",),
    )


def official_split(table: pd.DataFrame) -> list[str]:
    """Return the split of the 1/0 column `Train`; open where the table has none.

    Raises:
        SemcError: MANIFEST_INVALID with the row number.
    """
    if "Train" not in table:
        return [""] * len(table)
    for number, cell in table["Train"].items():
        if cell not in SPLITS:
            raise SemcError(
                ExitCode.MANIFEST_INVALID, f"Row {number}, column 'Train': not 1 or 0.", "correct the cell"
            )
    return [SPLITS[cell] for cell in table["Train"]]


def with_png(name: str) -> str:
    """Return an image's file name; the tables leave the ending out."""
    return name if name.lower().endswith((".png", ".jpg", ".jpeg")) else f"{name}.png"


FETAL_PLANES = CohortReader("fetal_planes", is_fetal_planes, read_fetal_planes, tuple(_TASKS))
FETAL_BRAIN_PLANES = CohortReader(
    "fetal_brain_planes", lambda root: has_columns(root, _INDEX_MARKS), read_fetal_brain_planes
)
