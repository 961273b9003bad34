"""What each centre brings to a study, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from semc.reporting.text_table import ABSENT, TextTable


@dataclass(frozen=True)
class SiteCounts:
    """What a site brings to the study."""

    num_train_images: int
    num_test_images: int
    num_train_patients: int | None
    """None, as below, where patients are not known."""
    num_test_patients: int | None
    class_counts: Mapping[str, int]
    """Class name to images, all splits together."""
    train_class_counts: Mapping[str, int] = field(default_factory=dict)
    """Class name to training images; empty where not known."""


def data_table(site_counts: Mapping[str, SiteCounts], classes: Sequence[str]) -> TextTable:
    """Return images, patients and class counts of every site side by side."""
    untested = [site for site, counts in site_counts.items() if not counts.num_test_images]
    unscored = f" Without a test image, so in no score: {', '.join(untested)}." if untested else ""
    return TextTable(
        title="What each centre has",
        caption="Images of each class: training, validation and test together. 0 = the centre has none of it."
        f"{unscored}",
        columns=("centre", "train images", "train patients", "test images", "test patients", *classes),
        rows=tuple(
            (
                site,
                str(counts.num_train_images),
                _count(counts.num_train_patients),
                str(counts.num_test_images),
                _count(counts.num_test_patients),
                *(str(counts.class_counts.get(name, 0)) for name in classes),
            )
            for site, counts in site_counts.items()
        ),
    )


def _count(number: int | None) -> str:
    return ABSENT if number is None else str(number)
