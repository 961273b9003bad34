"""One patient more or less at a hospital changes that patient's place in training and nobody else's."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from client.private_round import PrivateSiteTrainer
from semc.config import SiteConfig, load_site, parse_study
from semc.datasets import ManifestRow, SiteData, build_site_data
from semc.datasets.private_site_data import PrivateSiteData, build_private_site_data
from tests.attacks.audit_row import AuditRow, Control
from tests.client.private_site import PRIVATE_TEXT, private_site
from tests.client.small_study import write_site

Audit = Callable[[AuditRow], None]
Read = Callable[[SiteConfig], SiteData | PrivateSiteData]

STUDY = parse_study(PRIVATE_TEXT)
PATIENTS = 30


def _shared(site: SiteConfig) -> SiteData:
    return build_site_data(site.data, STUDY.data, 1)


def _private(site: SiteConfig) -> PrivateSiteData:
    return build_private_site_data(site.data, STUDY.data)


@pytest.mark.parametrize("official", [True, False])
def test_removing_a_patient_moves_no_other(official: bool, tmp_path: Path, audit: Audit) -> None:
    site, rows = _hospital(tmp_path, official=official)
    removed = _training_patients(_private(site))[:10]
    audit(
        AuditRow(
            "neighbouring hospitals: other patients whose training rows change with one patient (most)",
            f"{PATIENTS} patients, {'official train and test' if official else 'no official split'}",
            float(max(_moved(_private, site, rows, patient) for patient in removed)),
            0.0,
            (
                Control(
                    "the split that balances classes",
                    float(max(_moved(_shared, site, rows, patient) for patient in removed)),
                    1.0,
                ),
            ),
        )
    )


@pytest.mark.parametrize("same_label", [True, False])
def test_a_copy_under_another_patient_changes_nothing(same_label: bool, tmp_path: Path, audit: Audit) -> None:
    site, rows = _hospital(tmp_path, official=True)
    owner, intruder = _training_patients(_private(site))[:2]
    original = next(row for row in rows if row["group"] == owner)
    copy = next(row for row in rows if row["group"] == intruder)
    (site.data.root / copy["file"]).write_bytes((site.data.root / original["file"]).read_bytes())
    others = {"head": "femur", "femur": "abdomen", "abdomen": "head"}
    copy["label"] = original["label"] if same_label else others[original["label"]]
    _write(site, rows)
    audit(
        AuditRow(
            "neighbouring hospitals: other patients whose training rows change with a copied file",
            f"the copy has {'the same' if same_label else 'another'} label",
            float(_moved(_private, site, rows, intruder)),
            0.0,
            (
                Control(
                    "patients merged, or rows quarantined", float(_moved(_unsplit, site, rows, intruder)), 1.0
                ),
            ),
        )
    )


def test_a_patient_of_two_official_splits_does_not_train(tmp_path: Path) -> None:
    site, rows = _hospital(tmp_path, official=True)
    patient = _training_patients(_private(site))[0]
    next(row for row in rows if row["group"] == patient)["split"] = "test"
    _write(site, rows)
    assert patient not in _training_patients(_private(site))
    assert patient in {row.group for row in _private(site).test}


def test_without_an_official_split_about_the_asked_share_is_tested(tmp_path: Path) -> None:
    site, _ = _hospital(tmp_path, official=False)
    built = _private(site)
    assert not built.validation
    tested = {row.group for row in built.test}
    assert tested.isdisjoint(_training_patients(built))
    assert 1 <= len(tested) <= PATIENTS / 2
    other = site.data.model_copy(update={"split": site.data.split.model_copy(update={"seed": 1})})
    assert {row.group for row in build_private_site_data(other, STUDY.data).test} != tested


def _hospital(folder: Path, *, official: bool) -> tuple[SiteConfig, list[dict[str, str]]]:
    site = load_site(write_site(folder, patients=PATIENTS))
    with (site.data.root / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row["site"] = ""  # else it would stand before every patient's key
        row["split"] = row["split"] if official else ""
    _write(site, rows)
    return site, rows


def _write(site: SiteConfig, rows: list[dict[str, str]]) -> None:
    with (site.data.root / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _unsplit(site: SiteConfig) -> SiteData:
    """Read with merging and quarantine but without a cut, so that what moves is theirs."""
    split = site.data.split.model_copy(update={"validation_fraction": 0.0, "test_fraction": 0.0})
    return build_site_data(site.data.model_copy(update={"split": split}), STUDY.data, 1)


def _training_patients(built: SiteData | PrivateSiteData) -> list[str]:
    return sorted({row.group for row in built.train})


def _moved(read: Read, site: SiteConfig, rows: list[dict[str, str]], patient: str) -> int:
    """Return how many other patients train with other rows when a patient is removed."""
    with_it = _records(read(site).train)
    _write(site, [row for row in rows if row["group"] != patient])
    without_it = _records(read(site).train)
    _write(site, rows)
    groups = (with_it.keys() | without_it.keys()) - {patient}
    return sum(with_it.get(group) != without_it.get(group) for group in groups)


def _records(rows: tuple[ManifestRow, ...]) -> dict[str, frozenset[tuple[str, int]]]:
    """Return what each clipped record is made of: its files with their labels."""
    found: dict[str, set[tuple[str, int]]] = {}
    for row in rows:
        found.setdefault(row.group, set()).add((str(row.path), row.label))
    return {group: frozenset(files) for group, files in found.items()}


def test_a_private_round_reads_its_patients_so(tmp_path: Path) -> None:
    site = private_site(tmp_path)
    assert PrivateSiteTrainer(site, STUDY)._data() == _private(site) != _shared(site)
