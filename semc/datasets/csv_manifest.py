"""Any site's own table: `manifest.csv` or `index.csv` with file, label, group and whatever else it holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from semc.datasets.cohort_table import CentreKind, CentreRule, CohortOptions, CohortReader, CohortTable
from semc.datasets.manifest import read_table

TABLES = ("manifest.csv", "index.csv")
_CENTRES: dict[str, CentreKind] = {"site": "real", "device": "device", "acquisition": "acquisition"}
"""Columns of a plain manifest that can name a centre, in order of preference."""


def table_file(root: Path) -> Path | None:
    """Return the folder's table, if it has one."""
    return next((root / name for name in TABLES if (root / name).is_file()), None)


def has_columns(root: Path, columns: frozenset[str], names: Sequence[str] = TABLES) -> bool:
    """Tell whether the first of these tables has all these columns, by its header alone."""
    path = next((root / name for name in names if (root / name).is_file()), None)
    if path is None:
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        header = stream.readline()
    separator = ";" if header.count(";") > header.count(",") else ","
    return columns <= {name.strip().strip('"') for name in header.split(separator)}


def read_csv_manifest(root: Path, options: CohortOptions) -> CohortTable:
    """Read a manifest; its centres are its sites, devices or acquisitions.

    A patient is (site, group): numbers that two sites share are two patients.

    Raises:
        SemcError: DATA_NOT_FOUND or MANIFEST_INVALID.
    """
    del options
    images = _patients_by_site(read_table(table_file(root) or root / TABLES[0]))
    rules = [CentreRule((column,), kind) for column, kind in _CENTRES.items() if _filled(images, column)]
    if not rules or rules[0].kind != "real":
        rules.insert(0, CentreRule())
    return CohortTable("manifest", root, images, tuple(rules))


def _patients_by_site(images: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a group for each patient of each site.

    Groups that no two sites share keep their names: splits and partitions are drawn in the order of names, so a
    new name would change what was made of the same manifest before.
    """
    if "site" not in images or "group" not in images:
        return images
    known = images[images["group"] != ""]
    if (known.groupby("group")["site"].nunique() < 2).all():
        return images
    named = images["site"] + "/" + images["group"]
    return images.assign(group=named.where(images["group"] != "", ""))


def _filled(images: pd.DataFrame, column: str) -> bool:
    return column in images and bool((images[column] != "").any())


MANIFEST = CohortReader("manifest", lambda root: table_file(root) is not None, read_csv_manifest)
