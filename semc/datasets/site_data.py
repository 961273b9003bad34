"""A site's data, read and checked before anything is trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from semc.config.data import DataConfig
from semc.config.site import SiteDataConfig
from semc.datasets.decode import check_header, decode_image
from semc.datasets.duplicates import identical_files, merge_identical
from semc.datasets.lp2025 import read_lp2025
from semc.datasets.manifest import read_manifest
from semc.datasets.ontology import Ontology
from semc.datasets.sample import ManifestRow, SiteData, SourceRow
from semc.datasets.splits import split_rows
from semc.exit_codes import ExitCode, SemcError


@dataclass(frozen=True)
class ImageCheck:
    """Outcome of decoding every image once.

    Attributes:
        num_checked: Images looked at.
        errors: One per image that failed, in row order.
    """

    num_checked: int
    errors: tuple[SemcError, ...]


def build_site_data(site: SiteDataConfig, data: DataConfig, batch_size: int) -> SiteData:
    """Read a site's rows, split them by patient and refuse what cannot be trained on.

    Image headers are checked here (a wrong mode or a file that is no image costs no decoding); damaged pixels
    are met on first use, or by :func:`check_images`.

    Args:
        site: The site's data section.
        data: The study's data section.
        batch_size: Images per training step.

    Raises:
        SemcError: DATA_NOT_FOUND, MANIFEST_INVALID, LABEL_UNKNOWN, DATA_UNREADABLE, IMAGE_MODE, SPLIT_LEAK,
            SPLIT_EMPTY, CLASSES_TOO_FEW or IMAGES_TOO_FEW.
    """
    ontology = Ontology.of(data, site)
    source = read_lp2025(site, ontology) if site.format == "lp2025" else read_manifest(site, ontology)
    for listed in source:
        check_header(listed, data, site)
    ungrouped = any(not row.group for row in source)
    grouped = [_with_group(row) for row in source]
    unique = merge_identical(grouped, identical_files(grouped), ungrouped=ungrouped)
    rows = split_rows(unique.rows, site.split, ontology.num_classes)
    by_split = {
        name: tuple(row for row in rows if row.split == name) for name in ("train", "validation", "test")
    }
    counts = [0] * ontology.num_classes
    for row in by_split["train"]:
        counts[row.label] += 1
    built = SiteData(
        train=by_split["train"],
        validation=by_split["validation"],
        test=by_split["test"],
        class_counts=tuple(counts),
        ungrouped=ungrouped,
        num_merged_groups=unique.num_merged_groups,
        num_quarantined=unique.num_quarantined,
    )
    _check_enough(built, site, batch_size)
    return built


def check_images(rows: Sequence[ManifestRow], data: DataConfig, site: SiteDataConfig) -> ImageCheck:
    """Decode every image once and collect what fails; `semc-client check` shows the first of them."""
    errors = []
    for row in rows:
        try:
            decode_image(row, data, site)
        except SemcError as error:
            errors.append(error)
    return ImageCheck(len(rows), tuple(errors))


def _with_group(row: SourceRow) -> SourceRow:
    """Give an ungrouped image a group of its own."""
    return row if row.group else replace(row, group=f"row {row.index}")


def _check_enough(built: SiteData, site: SiteDataConfig, batch_size: int) -> None:
    wanted = {
        "train": (built.train, 1.0),
        "validation": (built.validation, site.split.validation_fraction),
        "test": (built.test, site.split.test_fraction),
    }
    for name, (rows, fraction) in wanted.items():
        if not rows and fraction > 0:
            fix = "add patients" if name == "train" else f"add patients, or set data.split.{name}_fraction: 0"
            raise SemcError(ExitCode.SPLIT_EMPTY, f"The {name} split has no images.", fix)
    num_present = sum(count > 0 for count in built.class_counts)
    if num_present < 2:
        raise SemcError(
            ExitCode.CLASSES_TOO_FEW,
            f"The training split holds {num_present} class of the study.",
            "add patients of another class; a site with one class cannot train",
        )
    if len(built.train) < batch_size:
        raise SemcError(
            ExitCode.IMAGES_TOO_FEW,
            f"The training split has {len(built.train)} images, one batch needs {batch_size}.",
            "add images, or agree on a smaller training.batch_size",
        )
