"""African fetal planes (Zenodo 7540448): five countries, one real hospital each, four planes.

Patient numbers restart in every country, so a patient is (centre, number). Every country has one image size.
"""

from __future__ import annotations

from pathlib import Path

from semc.datasets.cohort_table import CentreRule, CohortOptions, CohortReader, CohortTable
from semc.datasets.csv_manifest import has_columns
from semc.datasets.fetal_planes import official_split, with_png
from semc.datasets.manifest import read_table

TABLE = "African_planes_database.csv"
CLASSES = ("Fetal abdomen", "Fetal brain", "Fetal femur", "Fetal thorax")
"""The four planes; the same strings as in FETAL_PLANES_DB, so the two cohorts join on them."""
_MARKS = frozenset({"Patient_num", "Plane", "Center", "Filename"})


def is_african_planes(root: Path) -> bool:
    """Tell whether a folder has the official table."""
    return has_columns(root, _MARKS, (TABLE,))


def read_african_planes(root: Path, options: CohortOptions) -> CohortTable:
    """Read the official table; the group is centre and patient number.

    Raises:
        SemcError: DATA_NOT_FOUND or MANIFEST_INVALID.
    """
    del options
    table = read_table(root / TABLE)
    images = table.assign(
        file=table["Center"] + "/" + table["Filename"].map(with_png),
        label=table["Plane"],
        group=table["Center"] + "/" + table["Patient_num"],
        device=table["Center"],
        split=official_split(table),
    )
    return CohortTable(
        cohort="african_planes",
        root=root,
        images=images,
        centres=(CentreRule(("Center",), "real"),),
        licence="CC BY 4.0 (unverified), doi 10.5281/zenodo.7540448",
        notes=("one image size per country: size alone names the hospital", "at most 100 images a hospital"),
    )


AFRICAN_PLANES = CohortReader("african_planes", is_african_planes, read_african_planes)
