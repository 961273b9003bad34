"""What a site's data consist of before any study reads them: each row's cells, and the file they name.

No study is needed, no image is opened, and what a study would refuse (an unknown label, a missing image) is listed
like anything else: this is for telling whether data changed, not whether they serve.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from semc.config.site import SiteDataConfig
from semc.datasets.cohort_table import CohortOptions
from semc.datasets.lp2025 import read_lp2025_table
from semc.datasets.manifest import listed_cells, read_table, rename_columns
from semc.datasets.manifest_row import locate
from semc.exit_codes import ExitCode, SemcError

_KEY_DIGITS: Final = 32


@dataclass(frozen=True)
class ListedImage:
    """One row of a site's data."""

    row: int
    """Its number: the image's id in a study."""
    key: str
    """Names the image without telling its file: a hash of file and frame."""
    file: str
    """As the row names it, relative to the image folder."""
    cells: str
    """Everything the row says, in one form for equal contents."""


def listed_images(site: SiteDataConfig) -> list[ListedImage]:
    """List the rows of a site, in their order, without those it leaves out on purpose.

    Args:
        site: The site's data section.

    Raises:
        SemcError: DATA_NOT_FOUND or MANIFEST_INVALID.
    """
    if not site.root.is_dir():
        raise SemcError(ExitCode.DATA_NOT_FOUND, "The image folder does not exist.", "correct data.root")
    ignored = frozenset(site.ignore_labels)
    return [
        _listed(row, cells) for row, cells in _rows(site) if cells["label"] not in ignored and cells["file"]
    ]


def reading_rules(site: SiteDataConfig) -> str:
    """Return what decides how a site's rows become images with labels and splits, in one form for equal rules."""
    rules = {
        "format": site.format,
        "label_map": site.label_map,
        "ignore_labels": sorted(site.ignore_labels),
        "allow_ungrouped": site.allow_ungrouped,
        "split": site.split.model_dump(mode="json"),
    }
    return json.dumps(rules, sort_keys=True)


def place_of(image: ListedImage, root: Path) -> Path | None:
    """Return where an image lies, links followed; None where it is missing or not inside the image folder.

    Args:
        image: A listed row.
        root: The resolved image folder.
    """
    try:
        return locate(root, image.file, 0)
    except (SemcError, OSError, ValueError):
        return None


def _rows(site: SiteDataConfig) -> Iterator[tuple[int, dict[str, str]]]:
    if site.format == "lp2025":
        table = read_lp2025_table(site.root, CohortOptions()).images
    else:
        table = rename_columns(read_table(site.root / site.manifest), site.column_map)
    return listed_cells(table)


def _listed(row: int, cells: dict[str, str]) -> ListedImage:
    name = json.dumps([cells["file"], cells.get("frame", "")])
    return ListedImage(
        row=row,
        key=hashlib.sha256(name.encode()).hexdigest()[:_KEY_DIGITS],
        file=cells["file"],
        cells=json.dumps(cells, sort_keys=True),
    )
