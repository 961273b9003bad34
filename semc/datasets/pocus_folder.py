"""Point-of-care lung ultrasound: <label>/<file> with index.csv; the centre is the source.

The curators' own patient column is unreliable (one number per file, or one clip under two numbers), so a group must
be given: derive it from the clips, not from that column.
"""

from __future__ import annotations

from pathlib import Path

from semc.datasets.cohort_table import CentreRule, CohortOptions, CohortReader, CohortTable
from semc.datasets.csv_manifest import has_columns, table_file
from semc.datasets.manifest import read_table

_MARKS = frozenset({"file", "label", "source_id", "probe"})


def is_pocus(root: Path) -> bool:
    """Tell whether a folder has an index with source and probe."""
    return has_columns(root, _MARKS)


def read_pocus(root: Path, options: CohortOptions) -> CohortTable:
    """Read an index of point-of-care frames; the centre is the source (publication or contributor).

    Raises:
        SemcError: DATA_NOT_FOUND or MANIFEST_INVALID.
    """
    del options
    images = read_table(table_file(root) or root / "index.csv")
    images["device"] = images["probe"]
    return CohortTable(
        cohort="pocus",
        root=root,
        images=images,
        centres=(
            CentreRule(("source_id",), "acquisition", pool_small=True),
            CentreRule(("probe",), "device"),
        ),
        licence="per item: columns license and license_url",
        notes=("the class nearly follows from the source: no accuracy across sources can be claimed",),
    )


POCUS = CohortReader("pocus", is_pocus, read_pocus)
