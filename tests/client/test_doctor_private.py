"""The preflight of a private study looks at the rows as that study would, and at who is counted as whom."""

from __future__ import annotations

import shutil
from pathlib import Path

from client.doctor.data import data_rows
from client.doctor.row import Row
from semc.config import SiteConfig
from tests.client.private_site import PRIVATE_TEXT, private_site
from tests.client.small_study import STUDY_TEXT


def rows(site: SiteConfig, text: str) -> dict[str, Row]:
    study = site.policy.parent / "study.yaml"
    study.write_text(text, encoding="utf-8")
    return {row.name: row for row in data_rows(site, str(study), every_image=False)}


def test_the_policys_number_of_patients_is_held_against_those_that_train(tmp_path: Path) -> None:
    found = rows(private_site(tmp_path / "right"), PRIVATE_TEXT)
    assert found["policy's patients"].state == "passed"
    assert found["images"].found.startswith("18 train, 0 validation, 36 test")
    found = rows(private_site(tmp_path / "high", patients=7), PRIVATE_TEXT)
    assert (found["policy's patients"].state, found["policy's patients"].found) == (
        "warning",
        "the policy states 7, 6 train",
    )
    assert "policy's patients" not in rows(private_site(tmp_path / "plain"), STUDY_TEXT)


def test_one_person_under_two_keys_is_told(tmp_path: Path) -> None:
    site = private_site(tmp_path)
    assert rows(site, PRIVATE_TEXT)["identical files"].state == "passed"
    table = (site.data.root / "manifest.csv").read_text(encoding="utf-8").splitlines()
    cells = [line.split(",") for line in table[1:]]
    file, plane, patient = cells[0][:3]
    other = next(row for row in cells if row[1] == plane and row[2] != patient and row[4] == cells[0][4])
    shutil.copyfile(site.data.root / file, site.data.root / other[0])
    told = rows(site, PRIVATE_TEXT)["identical files"]
    assert told.state == "warning"
    assert told.found == "patients that share a file with another one: 1"


def test_rows_that_a_private_study_leaves_out_are_told_here_alone(tmp_path: Path) -> None:
    site = private_site(tmp_path)
    assert rows(site, PRIVATE_TEXT)["rows left out"].state == "passed"
    table = site.data.root / "manifest.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    columns = lines[0].split(",")

    def line(**cells: str) -> str:
        return ",".join(cells.get(name, "") for name in columns)

    lines += [line(file="lost.png", label="head", group="secret-1"), line(file="lost.png", label="head")]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    told = rows(site, PRIVATE_TEXT)
    assert told["images"].state == "passed"
    assert told["images"].found.startswith("18 train, 0 validation, 36 test")
    assert (told["rows left out"].state, told["rows left out"].found) == (
        "warning",
        "1 patients with a row that cannot serve, 1 rows that belong to no patient; the first: "
        f"Row {len(lines) - 1}: the image is missing.",
    )
    plain = rows(site, STUDY_TEXT)
    assert plain["images"].state == "wrong"  # mode none refuses, and names the row to the hospital
    assert "rows left out" not in plain
