"""The images of an experiment, described for its report: counts side by side, what a centre is, a few samples."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from semc.config import StudyConfig, load_site
from semc.datasets import SiteData, build_site_data
from semc.reporting.laboratory import CentreKind, SiteCounts
from semc.reporting.sample_images import pixels_only
from simulation.site_folder import SITE_FILE
from simulation.sites_summary import read_summary

NUM_SAMPLES = 4


@dataclass(frozen=True)
class LaboratoryData:
    """What a report says about the images.

    Attributes:
        counts: Site to counts.
        centre_kind: What a centre honestly is.
        centre_rule: How images were given to centres, in words.
        phantom: The images were drawn.
        sample_images: Site to base64 PNG of pixels only.
        notes: What to know before believing a figure.
    """

    counts: dict[str, SiteCounts]
    centre_kind: CentreKind
    centre_rule: str
    phantom: bool
    sample_images: dict[str, list[str]]
    notes: tuple[str, ...]


def describe_sites(study: StudyConfig, sites: Path) -> LaboratoryData:
    """Return what is known of the study's sites.

    Raises:
        SemcError: DATA_NOT_FOUND where `sites` was not made by `semc-sim sites`, and what a site is refused for.
    """
    summary = read_summary(sites)
    counts, samples = {}, {}
    for name in study.federation.sites:
        site = load_site(sites / name / SITE_FILE)
        data = build_site_data(site.data, study.data, study.training.batch_size)
        counts[name] = _counts(study, data)
        samples[name] = sample_images(data)
    return LaboratoryData(
        counts=counts,
        centre_kind=summary.centre_kind,
        centre_rule=" x ".join(summary.centre_columns) or summary.partition.replace("_", " "),
        phantom=summary.synthetic,
        sample_images=samples,
        notes=summary.notes,
    )


def sample_images(data: SiteData) -> list[str]:
    """Return a few test images of a hospital, one per class where possible, as base64 PNG of pixels only."""
    first_of_class = {row.label: row for row in reversed(data.test)}
    chosen = [first_of_class[label] for label in sorted(first_of_class)][:NUM_SAMPLES]
    return [pixels_only(base64.b64encode(row.path.read_bytes()).decode()) for row in chosen]


def _counts(study: StudyConfig, data: SiteData) -> SiteCounts:
    labels = Counter(row.label for row in (*data.train, *data.validation, *data.test))
    return SiteCounts(
        num_train_images=len(data.train),
        num_test_images=len(data.test),
        num_train_patients=None if data.ungrouped else len({row.group for row in data.train}),
        num_test_patients=None if data.ungrouped else len({row.group for row in data.test}),
        class_counts={name: labels[label] for label, name in enumerate(study.data.classes)},
        train_class_counts=dict(zip(study.data.classes, data.class_counts, strict=True)),
    )
