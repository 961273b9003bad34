"""A site's data where a guarantee holds for each patient: who trains is decided patient by patient.

The guarantee compares a hospital with and without one patient. If that patient's presence moved others between the
splits, joined their groups or dropped their rows, the two would differ in many patients, not in one. So what
:func:`semc.datasets.build_site_data` does with all patients at once (a cut that gives each class its share, the
merging of patients who share an identical file, quarantine, least counts) is not done here. A person under
two patient keys is two patients to the guarantee.
"""

from __future__ import annotations

from collections import defaultdict

from semc.config.data import DataConfig
from semc.config.site import SiteDataConfig, SplitConfig
from semc.datasets.decode import check_header
from semc.datasets.lp2025 import read_lp2025
from semc.datasets.manifest import read_manifest
from semc.datasets.ontology import Ontology
from semc.datasets.sample import ManifestRow, SiteData, SourceRow, Split
from semc.exit_codes import ExitCode, SemcError
from semc.seed import derive_seed

_SEEDS = 2**63
"""Seeds lie in [0, this)."""


def build_private_site_data(site: SiteDataConfig, data: DataConfig) -> SiteData:
    """Read a site's rows and give each patient its split, whoever the other patients are.

    Args:
        site: The site's data section.
        data: The study's data section.

    Returns:
        Rows by split. An official split is kept; where there is none, a patient is tested with chance `test_fraction`
        and trains otherwise: no validation patients are cut, since nobody asks about them in this mode.

    Raises:
        SemcError: DATA_NOT_FOUND, MANIFEST_INVALID (also a row without a patient key), LABEL_UNKNOWN,
            DATA_UNREADABLE or IMAGE_MODE.
    """
    ontology = Ontology.of(data, site)
    source = read_lp2025(site, ontology) if site.format == "lp2025" else read_manifest(site, ontology)
    by_patient: defaultdict[str, list[SourceRow]] = defaultdict(list)
    for listed in source:
        check_header(listed, data, site)
        if not listed.group:
            raise SemcError(
                ExitCode.MANIFEST_INVALID,
                f"Row {listed.index} has no patient key, and patient-level privacy protects patients.",
                "fill the group column in every row",
            )
        by_patient[listed.group].append(listed)
    splits = {patient: split_of(patient, rows, site.split) for patient, rows in by_patient.items()}
    rows = [_placed(listed, splits[listed.group]) for listed in source]
    train = tuple(row for row in rows if row.split == "train")
    return SiteData(
        train=train,
        validation=tuple(row for row in rows if row.split == "validation"),
        test=tuple(row for row in rows if row.split == "test"),
        class_counts=tuple(sum(row.label == label for row in train) for label in range(ontology.num_classes)),
        ungrouped=False,
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


def _placed(row: SourceRow, split: Split) -> ManifestRow:
    return ManifestRow(
        row.index, row.path, row.label, row.group, split, row.centre, row.acquisition, row.device, row.frame
    )
