"""What is known of a folder of made sites: `sites.json`, and the same for people."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError
from rich.console import Group
from rich.table import Table
from rich.text import Text

from semc.config.section import Section
from semc.datasets.cohort_table import CentreKind
from semc.exit_codes import ExitCode, SemcError
from simulation.site_folder import SiteCounts

COUNTS_FILE = "sites.json"
_WHY_LEFT_OUT = "of patients who are mostly at another centre or in the test split, or copies with two labels"


class SitesSummary(Section):
    """The content of `sites.json`."""

    source: str
    """`phantom`, or the names of the source folders."""
    cohort: str = ""
    task: str = ""
    """What the labels tell, where the cohort has several tasks."""
    synthetic: bool
    """Drawn by the phantom."""
    partition: str
    """The rule that made the sites."""
    centre_kind: CentreKind
    """What a site honestly is: only `real` ones are hospitals."""
    centre_columns: tuple[str, ...]
    centres_left_out: dict[str, str] = Field(default_factory=dict)
    """Centres that cannot be sites, each with the reason."""
    rows_left_out: int
    """Images of patients seen at a second centre, contradictory copies, training patients found in the test split."""
    licence: str = ""
    notes: tuple[str, ...] = ()
    """What to know before believing a figure."""
    seed: int
    sites: dict[str, SiteCounts]


def read_summary(folder: Path) -> SitesSummary:
    """Read what is known of sites made earlier.

    Raises:
        SemcError: DATA_NOT_FOUND where `folder` was not made by `semc-sim sites`.
    """
    try:
        return SitesSummary.model_validate_json((folder / COUNTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise SemcError(
            ExitCode.DATA_NOT_FOUND,
            f"The folder of sites has no readable {COUNTS_FILE}.",
            "make it with `semc-sim sites`",
        ) from error


def read_site_counts(folder: Path) -> dict[str, SiteCounts]:
    """Read the counts of sites made earlier; errors as in :func:`read_summary`."""
    return read_summary(folder).sites


def sites_report(summary: SitesSummary) -> Group:
    """Return the sites for people: the table, what the centres are, and what was left out."""
    by = " x ".join(summary.centre_columns) if summary.partition == "by_centre" else summary.partition
    lines = [f"sites by {by}: {summary.centre_kind}"]
    lines += [f"left out, {reason}: {centre}" for centre, reason in summary.centres_left_out.items()]
    if summary.rows_left_out:
        lines.append(f"images left out, {_WHY_LEFT_OUT}: {summary.rows_left_out}")
    lines += [f"note: {note}" for note in summary.notes]
    return Group(sites_table(summary.sites), classes_table(summary.sites), *map(Text, lines))


def sites_table(counts: dict[str, SiteCounts]) -> Table:
    """Return the sites as a table for the terminal: images by split, and patients."""
    table = Table(title="Sites: images and patients")
    table.add_column("site", no_wrap=True)
    for heading in ("train", "validation", "test", "train\npatients", "test\npatients"):
        table.add_column(heading, justify="right")
    for site, count in counts.items():
        images = (count.num_train_images, count.num_validation_images, count.num_test_images)
        cells = (*images, count.num_train_patients, count.num_test_patients)
        table.add_row(site, *(str(cell) for cell in cells))
    return table


def classes_table(counts: dict[str, SiteCounts]) -> Table:
    """Return the training images of each class; one line a class, since classes can be many."""
    table = Table(title="Training images by class")
    table.add_column("class", overflow="fold")
    for site in counts:
        table.add_column(site, justify="right", overflow="fold")
    for name in next(iter(counts.values())).class_counts:
        table.add_row(name, *(str(count.class_counts[name]) for count in counts.values()))
    return table
