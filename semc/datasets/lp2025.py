"""The LP2025 layout: {train,test}/<class>/<file>, every file an image; no patients, devices or hospitals.

The folder names are labels, read by name. There is no group key, so a site must accept ungrouped data; the
official test split is kept and validation is cut from train.
"""

from __future__ import annotations

from pathlib import Path

from semc.config.site import SiteDataConfig
from semc.datasets.cohort_table import CohortOptions, CohortReader, CohortTable, table_from
from semc.datasets.ontology import Ontology
from semc.datasets.sample import SourceRow, Split
from semc.exit_codes import ExitCode, SemcError

_FOLDERS: dict[str, Split] = {"train": "train", "val": "validation", "test": "test"}
"""Folder name to split; `val` is optional."""
_REQUIRED = ("train", "test")


def is_lp2025(root: Path) -> bool:
    """Tell whether a folder has this layout."""
    return all((root / name).is_dir() for name in _REQUIRED)


def read_lp2025(site: SiteDataConfig, ontology: Ontology) -> list[SourceRow]:
    """List the images of an LP2025 folder, sorted by split, class and file name.

    An image's row number is its place in that order, from 1.

    Raises:
        SemcError: DATA_NOT_FOUND, LABEL_UNKNOWN, SPLIT_LEAK (ungrouped data not accepted) or MANIFEST_INVALID
            (a link that leaves the folder).
    """
    if not is_lp2025(site.root):
        raise SemcError(
            ExitCode.DATA_NOT_FOUND,
            "The image folder has no train and test folders.",
            "correct data.root, or use data.format: manifest",
        )
    if not site.allow_ungrouped:
        raise SemcError(
            ExitCode.SPLIT_LEAK,
            "This layout holds no patient key.",
            "give a manifest with groups, or accept leakage: data.allow_ungrouped (semc-sim --allow-ungrouped)",
        )
    root = site.root.resolve()
    rows: list[SourceRow] = []
    number = 0
    for folder, split in _FOLDERS.items():
        for class_folder in _visible(site.root / folder):
            for path in _visible(class_folder):
                number += 1
                label = ontology.label_of(class_folder.name, number)
                if label is None:
                    continue
                resolved = path.resolve()
                if not resolved.is_relative_to(root):
                    raise SemcError(
                        ExitCode.MANIFEST_INVALID,
                        f"Image {number} is a link that leaves the image folder.",
                        "copy the image in",
                    )
                rows.append(SourceRow(number, resolved, label, "", split, "", "", "", 0))
    return rows


def read_lp2025_table(root: Path, options: CohortOptions) -> CohortTable:
    """List an LP2025 folder as a cohort, in the order and numbering of :func:`read_lp2025`.

    Raises:
        SemcError: DATA_NOT_FOUND where it holds no image.
    """
    del options
    records = [
        {"file": path.relative_to(root).as_posix(), "label": class_folder.name, "group": "", "split": split}
        for folder, split in _FOLDERS.items()
        for class_folder in _visible(root / folder)
        for path in _visible(class_folder)
    ]
    return CohortTable(
        cohort="lp2025",
        root=root,
        images=table_from(records),
        notes=("no patient, device or hospital: every centre is synthetic, no split is patient-disjoint",),
    )


def _visible(folder: Path) -> list[Path]:
    """Return a folder's entries by name, without hidden ones."""
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


LP2025 = CohortReader("lp2025", is_lp2025, read_lp2025_table)
