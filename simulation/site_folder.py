"""One hospital's folder: site.yaml, manifest.csv and images; nothing in it knows the other hospitals.

Images are hard-linked where the file system allows it and copied where not: symbolic links would leave the
site's folder, which a site refuses.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import yaml

from semc.config.data import DataConfig
from semc.config.section import Section
from semc.config.site import SplitConfig, load_site
from semc.datasets.link_image import link_image
from semc.datasets.phantom.write import MANIFEST_COLUMNS
from semc.datasets.sample import SourceRow
from semc.datasets.site_data import build_site_data
from semc.datasets.splits import split_rows
from semc.exit_codes import SemcError
from simulation.cohort import Cohort

__all__ = ["IMAGES", "MANIFEST", "SITE_FILE", "SiteCounts", "link_image", "write_site"]

SITE_FILE, MANIFEST, IMAGES = "site.yaml", "manifest.csv", "images"
_SMALLEST_BATCH = 2


class SiteCounts(Section):
    """What is known of a made site: sizes for the enrolment record and the report."""

    centre: str
    """The centre it stands for; empty for a synthetic partition."""
    num_train_images: int
    num_validation_images: int
    num_test_images: int
    num_train_patients: int
    num_test_patients: int
    class_counts: dict[str, int]
    """Training images per class, zeros included."""
    ungrouped: bool
    """No patient keys: figures of this site are not patient-disjoint."""


def write_site(folder: Path, cohort: Cohort, rows: Sequence[SourceRow], split: SplitConfig) -> SiteCounts:
    """Write a site's folder and read it back as the site will.

    Args:
        folder: The new, empty folder; its name is the site's.
        cohort: Where the rows come from.
        rows: The site's images.
        split: How the site divides them; a site with too few patients goes without a validation split.

    Raises:
        SemcError: What the site itself would refuse, with the site's name.
    """
    images = folder / IMAGES
    images.mkdir(parents=True)
    with (folder / MANIFEST).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(MANIFEST_COLUMNS)
        for row in rows:
            file = row.path.relative_to(cohort.root)
            target = images / file
            target.parent.mkdir(parents=True, exist_ok=True)
            link_image(row.path, target)
            group = "" if row.index in cohort.ungrouped else row.group
            cells = (cohort.classes[row.label], group, folder.name, row.split or "", row.acquisition)
            writer.writerow((f"{IMAGES}/{file.as_posix()}", *cells, row.device or row.centre, row.frame))
    split = _feasible(split, rows, len(cohort.classes))
    content = {
        "site": folder.name,
        "data": {
            "format": "manifest",
            "root": ".",
            "manifest": MANIFEST,
            "allow_ungrouped": any(row.index in cohort.ungrouped for row in rows),
            "split": split.model_dump(mode="json"),
        },
    }
    (folder / SITE_FILE).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    data = DataConfig(classes=cohort.classes)
    try:
        built = build_site_data(load_site(folder / SITE_FILE).data, data, _SMALLEST_BATCH)
    except SemcError as error:
        raise SemcError(error.code, f"Site '{folder.name}': {error.problem}", error.fix) from error
    centres = {row.centre for row in rows}
    return SiteCounts(
        centre=centres.pop() if len(centres) == 1 else "",
        num_train_images=len(built.train),
        num_validation_images=len(built.validation),
        num_test_images=len(built.test),
        num_train_patients=len({row.group for row in built.train}),
        num_test_patients=len({row.group for row in built.test}),
        class_counts=dict(zip(cohort.classes, built.class_counts, strict=True)),
        ungrouped=built.ungrouped,
    )


def _feasible(split: SplitConfig, rows: Sequence[SourceRow], num_classes: int) -> SplitConfig:
    """Return the split, without validation where too few patients would leave it empty."""
    if any(row.split == "validation" for row in split_rows(rows, split, num_classes)):
        return split
    return split.model_copy(update={"validation_fraction": 0.0})
