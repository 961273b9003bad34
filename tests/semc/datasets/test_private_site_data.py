"""Rows of a private study: a patient serves wholly or not at all, for reasons of its own, and no row raises."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from semc.config import SiteDataConfig
from semc.datasets import SiteImages, build_site_data
from semc.datasets.private_site_data import PrivateSiteData, build_private_site_data
from semc.datasets.whole_patients import whole_patients
from semc.exit_codes import ExitCode, SemcError
from tests.semc.datasets.tiny_site import DATA, patients, write_image, write_site

HEADER = "file,label,group,split,frame"
ROWS = [(*row, "test" if row[2] == "p5" else "train", "") for row in patients(6, 2)]
"""Six patients with two rows each; the last is tested."""


def site_with(root: Path, line: str) -> SiteDataConfig:
    """Write the six patients with one more line above them, so that nothing below goes by its number."""
    site = write_site(root, ROWS, HEADER)
    first, *others = (root / "manifest.csv").read_text(encoding="utf-8").splitlines()
    content = "\n".join([first, line, *others]) + "\n"
    (root / "manifest.csv").write_bytes(content.encode("utf-8", "surrogateescape"))
    return site


def served(data: PrivateSiteData) -> dict[str, int]:
    """Return each patient's number of rows."""
    groups = [row.group for rows in (data.train, data.validation, data.test) for row in rows]
    return {group: groups.count(group) for group in groups}


EVERYONE = {f"p{number}": 2 for number in range(6)}

BAD_LINES = [
    "p0_0.png,spleen,{},train,",  # a label the study does not have
    "p0_0.png,Head,{},train,",
    "p0_0.png,,{},train,",
    "missing.png,head,{},train,",
    "text.png,head,{},train,",
    "wide.png,head,{},train,",
    "folder,head,{},train,",
    "../p0_0.png,head,{},train,",
    "/p0_0.png,head,{},train,",
    "out.png,head,{},train,",
    "circle.png,head,{},train,",
    f"{'x' * 5000}.png,head,{{}},train,",
    "nul\0.png,head,{},train,",
    "\udcff.png,head,{},train,",
    ",head,{},train,",
    "p0_0.png,head,{},dev,",
    "p0_0.png,head,{},train,first",
    f"p0_0.png,head,{{}},train,{'9' * 5000}",
]


def add_bad_files(root: Path) -> None:
    (root / "text.png").write_text("no image", encoding="utf-8")
    write_image(root / "wide.png", 1, mode="I;16")
    (root / "folder").mkdir()
    write_image(root.parent / "outside.png", 2)
    (root / "out.png").symlink_to(root.parent / "outside.png")
    (root / "circle.png").symlink_to(root / "circle.png")


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_row_that_cannot_serve_leaves_out_its_patient_and_nobody_else(line: str, tmp_path: Path) -> None:
    root = tmp_path / "images"
    for patient, left in (("new", EVERYONE), ("p0", {**EVERYONE, "p0": 0}), ("p5", {**EVERYONE, "p5": 0})):
        site = site_with(root, line.format(patient))
        if not (root / "folder").exists():
            add_bad_files(root)
        built = build_private_site_data(site, DATA)
        assert served(built) == {name: count for name, count in left.items() if count}
        assert (built.dropped_patients, built.dropped_rows, len(built.faults)) == (1, 0, 1)
        assert "Row 2" in built.faults[0].problem
        assert str(tmp_path) not in str(built.faults[0])
    with pytest.raises((SemcError, OSError, ValueError, RuntimeError)):
        build_site_data(site, DATA, 1)  # the control: the reading of mode none ends here


@pytest.mark.parametrize(
    "line", ["p0_0.png,head,,train,", "missing.png,spleen,,dev,x", 'p0_0.png,"head,p0,train,', "a,b,p0,d,e,f"]
)
def test_a_line_that_belongs_to_no_patient_is_left_out_alone(line: str, tmp_path: Path) -> None:
    built = build_private_site_data(site_with(tmp_path, line), DATA)
    assert served(built) == EVERYONE
    assert (built.dropped_patients, built.dropped_rows, built.faults) == (0, 1, ())


@pytest.mark.parametrize("label", ["head", "femur"])
@pytest.mark.parametrize("patient", ["new", "p0", "p1"])
def test_a_file_that_two_rows_name_is_no_reason_for_anything(
    label: str, patient: str, tmp_path: Path
) -> None:
    site = site_with(tmp_path, f"p0_0.png,{label},{patient},train,")
    built = build_private_site_data(site, DATA)
    assert served(built) == {**EVERYONE, patient: EVERYONE.get(patient, 0) + 1}
    assert built.dropped_patients == built.dropped_rows == 0


def test_image_mode_is_the_patients_affair_too(tmp_path: Path) -> None:
    site = write_site(tmp_path, ROWS, HEADER)
    write_image(tmp_path / "p1_1.png", 1, mode="RGB")
    built = build_private_site_data(site, DATA.model_copy(update={"image_mode": "grey"}))
    assert served(built) == {name: count for name, count in EVERYONE.items() if name != "p1"}
    assert built.faults[0].code is ExitCode.IMAGE_MODE


def test_ignored_labels_and_marked_repeats_are_no_faults(tmp_path: Path) -> None:
    site = site_with(tmp_path, "missing.png,doppler,p0,train,").model_copy(
        update={"ignore_labels": ("doppler",)}
    )
    assert served(build_private_site_data(site, DATA)) == EVERYONE
    (tmp_path / "manifest.csv").write_text(
        "file,label,group,exact_dup_of\np0_0.png,head,p0,\nmissing.png,head,p0,p0_0.png\n", encoding="utf-8"
    )
    built = build_private_site_data(site, DATA)
    assert served(built) == {"p0": 1}
    assert built.dropped_patients == 0


def test_a_hospital_of_one_class_one_image_or_nobody_is_read(tmp_path: Path) -> None:
    for number, rows in enumerate([[row for row in ROWS if row[1] == "head"], ROWS[:1], []]):
        built = build_private_site_data(write_site(tmp_path / str(number), rows, HEADER), DATA)
        assert len(built.train) == len(rows)
        with pytest.raises(SemcError):  # the control
            build_site_data(SiteDataConfig(root=tmp_path / str(number)), DATA, 8)


def test_facts_about_the_site_are_refused(tmp_path: Path) -> None:
    def code(site: SiteDataConfig) -> ExitCode:
        with pytest.raises(SemcError) as caught:
            build_private_site_data(site, DATA)
        return caught.value.code

    site = write_site(tmp_path / "images", ROWS, HEADER)
    assert code(site.model_copy(update={"root": tmp_path / "none"})) is ExitCode.DATA_NOT_FOUND
    assert code(site.model_copy(update={"manifest": "none.csv"})) is ExitCode.DATA_NOT_FOUND
    assert code(site.model_copy(update={"format": "lp2025"})) is ExitCode.MANIFEST_INVALID
    assert code(site.model_copy(update={"column_map": {"group": "patient"}})) is ExitCode.MANIFEST_INVALID
    assert code(site.model_copy(update={"label_map": {"head": "spleen"}})) is ExitCode.LABEL_UNKNOWN
    for header in ("file,label", "label,group"):
        (site.root / "manifest.csv").write_text(header + "\n", encoding="utf-8")
        assert code(site) is ExitCode.MANIFEST_INVALID


def test_the_log_has_numbers_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    build_private_site_data(write_site(tmp_path, ROWS, HEADER), DATA)
    assert not caplog.records
    site = site_with(tmp_path, "missing-secret.png,secret,secret,train,\nsecret.png,head,,train,")
    build_private_site_data(site, DATA)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == ("1 patients are left out of this study for rows 2; lines that belong to no patient: 3.")
    many = "\n".join(["secret.png,head,,train,"] * 25)
    build_private_site_data(site_with(tmp_path, many), DATA)
    assert caplog.records[-1].getMessage().endswith("20, 21 and 5 more.")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_its_patients_affair(tmp_path: Path) -> None:
    write_image(tmp_path / "locked" / "a.png", 1)
    site = site_with(tmp_path, "locked/a.png,head,new,train,")
    (tmp_path / "locked").chmod(0)
    try:
        built = build_private_site_data(site, DATA)
    finally:
        (tmp_path / "locked").chmod(0o700)
    assert served(built) == EVERYONE
    assert built.dropped_patients == 1


def test_a_damaged_image_takes_its_patient_out_of_an_evaluation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    site = write_site(tmp_path, ROWS, HEADER)
    rows = build_private_site_data(site, DATA).train
    assert whole_patients(rows, SiteImages(DATA, site)) == list(rows)
    (tmp_path / "p1_1.png").write_bytes((tmp_path / "p1_1.png").read_bytes()[:200])
    left = whole_patients(rows, SiteImages(DATA, site))
    assert left == [row for row in rows if row.group != "p1"]
    assert [record.getMessage() for record in caplog.records if record.name.startswith("semc")] == [
        "A patient is left out: Row 5: the image cannot be decoded."
    ]
