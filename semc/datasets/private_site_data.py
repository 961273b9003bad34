"""A site's data where a guarantee holds for each patient: every patient is read as if there were no other.

The guarantee compares a hospital with and without one patient. If that patient's presence moved others between the
splits, joined their groups, dropped their rows or ended the reading, the two would differ in many patients, or in
whether the hospital answers at all. So what :func:`semc.datasets.build_site_data` does with all patients at
once (a cut that gives each class its share, the merging of patients who share an identical file, quarantine, least
counts) is not done here, and no row raises:

- A patient's split, and whether the patient serves at all, is a function of that patient's own lines, of the files
  they name, of the study and of the site's settings.
- A patient with a row that cannot serve (label, file, header, any cell) is left out wholly, of training and tests.
- Lines that belong to no patient (no key, or no row of the table) are left out alone.
- A file that several rows name is no reason for anything.

What is refused are facts about the site: no manifest, a header without the columns, settings that do not fit the
study. Headers of images are read here, pixels on first use; what breaks only then is the business of
:mod:`semc.datasets.whole_patients` and of :class:`semc.training.private_trainer.PrivateTrainer`. A person under two
patient keys is two patients to the guarantee.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from semc.config.data import DataConfig
from semc.config.site import SiteDataConfig, SplitConfig
from semc.datasets.decode import check_header
from semc.datasets.line_table import read_lines
from semc.datasets.manifest import listed_cells, rename_columns
from semc.datasets.manifest_row import group_of, source_row, validated
from semc.datasets.ontology import Ontology
from semc.datasets.sample import ManifestRow, SourceRow, Split
from semc.exit_codes import ExitCode, SemcError
from semc.seed import derive_seed

log = logging.getLogger(__name__)

_SEEDS = 2**63
"""Seeds lie in [0, this)."""
_MOST_LOGGED: Final = 20


@dataclass(frozen=True)
class PrivateSiteData:
    """A site's rows by split, and what was left out; lists only, no pixels. All of it stays at the site."""

    train: tuple[ManifestRow, ...]
    validation: tuple[ManifestRow, ...]
    """Rows of an official split; nobody asks about them in this mode."""
    test: tuple[ManifestRow, ...]
    dropped_patients: int
    """Patients left out for a row that cannot serve the study."""
    dropped_rows: int
    """Lines left out because they belong to no patient."""
    faults: tuple[SemcError, ...] = field(default=(), compare=False)
    """Why, one for each row that cannot serve, in the manifest's order."""


def build_private_site_data(site: SiteDataConfig, data: DataConfig) -> PrivateSiteData:
    """Read a site's rows and give each patient its split, whoever the other patients are.

    Args:
        site: The site's data section.
        data: The study's data section.

    Returns:
        Rows by split. An official split is kept; where there is none, a patient is tested with chance `test_fraction`
        and trains otherwise: no validation patients are cut, since nobody asks about them in this mode.

    Raises:
        SemcError: DATA_NOT_FOUND (no image folder, no manifest), MANIFEST_INVALID (its header, or a layout without
            patient keys) or LABEL_UNKNOWN (the site's label_map leads out of the study); never for a row.
    """
    if site.format != "manifest":
        raise _invalid("This layout holds no patient key, and patient-level privacy protects patients.")
    if not site.root.is_dir():
        raise SemcError(ExitCode.DATA_NOT_FOUND, "The image folder does not exist.", "correct data.root")
    ontology = Ontology.of(data, site)
    lines = read_lines(site.root / site.manifest)
    table = rename_columns(lines.table, site.column_map)
    if "group" not in table:
        raise _invalid("The manifest has no column 'group', and patient-level privacy protects patients.")
    root = site.root.resolve()
    by_patient: defaultdict[str, list[SourceRow]] = defaultdict(list)
    faults: dict[int, SemcError] = {}
    faulty: set[str] = set()
    nobodys = list(lines.unread)
    for number, cells in listed_cells(table):
        patient = group_of(cells.get("site", ""), cells["group"])
        if not patient:
            nobodys.append(number)
            continue
        try:
            row = _serving_row(cells, number, root, site, data, ontology)
        except SemcError as error:
            faults[number] = error
            faulty.add(patient)
            continue
        if row is not None:
            by_patient[patient].append(row)
    if faulty or nobodys:
        log.warning(
            "%d patients are left out of this study for rows %s; lines that belong to no patient: %s.",
            *(len(faulty), _listed(list(faults)), _listed(nobodys)),
        )
    placed = [
        _placed(row, split_of(patient, rows, site.split))
        for patient, rows in by_patient.items()
        if patient not in faulty
        for row in rows
    ]
    placed.sort(key=lambda row: row.index)
    return PrivateSiteData(
        train=tuple(row for row in placed if row.split == "train"),
        validation=tuple(row for row in placed if row.split == "validation"),
        test=tuple(row for row in placed if row.split == "test"),
        dropped_patients=len(faulty),
        dropped_rows=len(nobodys),
        faults=tuple(faults.values()),
    )


def split_of(patient: str, rows: list[SourceRow], split: SplitConfig) -> Split:
    """Return a patient's split, a function of this patient and the site's seed alone.

    Args:
        patient: The patient's key.
        rows: The patient's rows. One that is officially tested keeps the whole patient out of training.
        split: The site's seed and test fraction.
    """
    official = {row.split for row in rows}
    for name in ("test", "validation", "train"):
        if name in official:
            return name
    place = derive_seed(split.seed, "split of a patient", patient) / _SEEDS
    return "test" if place < split.test_fraction else "train"


def _serving_row(
    cells: Mapping[str, str],
    number: int,
    root: Path,
    site: SiteDataConfig,
    data: DataConfig,
    ontology: Ontology,
) -> SourceRow | None:
    """Return one row, None where the site ignores its label; any fault of it is a SemcError."""
    try:
        row = source_row(validated(cells, number), number, root, site, ontology)
        if row is not None:
            check_header(row, data, site)
    except SemcError:
        raise
    # Names that no file system takes, links in a circle, folders that may not be read: each kind has its own error.
    except Exception as error:
        problem = f"Row {number}: the image cannot be looked up."
        raise SemcError(ExitCode.DATA_UNREADABLE, problem, "correct the cell, or remove the row") from error
    return row


def _placed(row: SourceRow, split: Split) -> ManifestRow:
    return ManifestRow(
        row.index, row.path, row.label, row.group, split, row.centre, row.acquisition, row.device, row.frame
    )


def _listed(numbers: list[int]) -> str:
    more = f" and {len(numbers) - _MOST_LOGGED} more" if len(numbers) > _MOST_LOGGED else ""
    return (", ".join(str(number) for number in sorted(numbers)[:_MOST_LOGGED]) or "none") + more


def _invalid(problem: str) -> SemcError:
    return SemcError(ExitCode.MANIFEST_INVALID, problem, "give a manifest that names every row's patient")
