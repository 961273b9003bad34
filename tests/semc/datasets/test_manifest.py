from __future__ import annotations

from pathlib import Path

import pytest

from semc.config import SiteDataConfig
from semc.datasets.manifest import read_manifest
from semc.datasets.ontology import Ontology
from semc.exit_codes import ExitCode, SemcError

from .tiny_site import CLASSES, write_image, write_site

ONTOLOGY = Ontology(CLASSES)


def refused(site: SiteDataConfig, code: ExitCode, says: str) -> None:
    """Assert that a manifest is refused with one line that names the row and no cell."""
    with pytest.raises(SemcError, match=says) as caught:
        read_manifest(site, ONTOLOGY)
    assert caught.value.code is code
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_are_numbered_as_a_spreadsheet_shows_them(tmp_path: Path) -> None:
    site = write_site(tmp_path, [("a.png", "head", "p1"), ("b.png", "femur", "p2")])
    rows = read_manifest(site, ONTOLOGY)
    assert [(row.index, row.label, row.group, row.split) for row in rows] == [
        (2, 0, "p1", None),
        (3, 2, "p2", None),
    ]
    assert rows[0].path == (tmp_path / "a.png").resolve()


def test_foreign_table_with_semicolons_padded_cells_and_no_suffix(tmp_path: Path) -> None:
    """The shape of FETAL_PLANES_DB_data.csv: `;`, trailing spaces in header and cells, names without .png."""
    for name in ("x1.png", "x2.png"):
        write_image(tmp_path / name, len(name))
    site = write_site(
        tmp_path,
        [("x1", "head ", "7", "1 "), ("x2", " femur", "8", "0 ")],
        header="Image_name;Plane;Patient_num ;Train ",
        images=False,
    ).model_copy(update={"column_map": {"file": "Image_name", "label": "Plane", "group": "Patient_num"}})
    rows = read_manifest(site, ONTOLOGY)
    assert [(row.path.name, row.label, row.group) for row in rows] == [("x1.png", 0, "7"), ("x2.png", 2, "8")]


def test_optional_columns_and_extra_columns(tmp_path: Path) -> None:
    header = "file,label,group,site,split,acquisition,device,frame,licence"
    cells = ("a.png", "head", "9", "ward", "VAL", "clip1", "probe", "4", "CC")
    (row,) = read_manifest(write_site(tmp_path, [cells], header), ONTOLOGY)
    assert (row.group, row.centre, row.split, row.acquisition, row.device, row.frame) == (
        "ward/9",
        "ward",
        "validation",
        "clip1",
        "probe",
        4,
    )


def test_a_patient_number_reused_at_two_centres_is_two_groups(tmp_path: Path) -> None:
    rows = [("a.png", "head", "1", "north"), ("b.png", "head", "1", "south")]
    site = write_site(tmp_path, rows, "file,label,group,site")
    assert len({row.group for row in read_manifest(site, ONTOLOGY)}) == 2
    bare = write_site(tmp_path / "bare", [row[:3] for row in rows])
    assert len({row.group for row in read_manifest(bare, ONTOLOGY)}) == 1, (
        "control: the bare number mixes them"
    )


def test_marked_repeats_and_blank_lines_are_left_out(tmp_path: Path) -> None:
    rows = [("a.png", "head", "p1", ""), ("b.png", "head", "p1", "a.png"), ("c.png", "head", "p2", "")]
    site = write_site(tmp_path, rows, "file,label,group,exact_dup_of")
    text = (tmp_path / "manifest.csv").read_text().replace("c.png", "\nc.png")
    (tmp_path / "manifest.csv").write_text(text)
    assert [row.index for row in read_manifest(site, ONTOLOGY)] == [2, 5]


def test_ignored_labels_are_left_out(tmp_path: Path) -> None:
    site = write_site(tmp_path, [("a.png", "head", "p1"), ("b.png", "blank", "p1")])
    rows = read_manifest(site, Ontology(CLASSES, ignored=("blank",)))
    assert [row.index for row in rows] == [2]


@pytest.mark.parametrize("file", ["../secret.png", "a/../../secret.png", "..\\secret.png"])
def test_climbing_out_is_refused(tmp_path: Path, file: str) -> None:
    site = write_site(tmp_path / "root", [("a.png", "head", "p1")])
    (tmp_path / "root" / "manifest.csv").write_text(f"file,label,group\na.png,head,p\n{file},head,p\n")
    refused(site, ExitCode.MANIFEST_INVALID, r"Row 3, column 'file'.*'\.\.'")


@pytest.mark.parametrize("file", ["/etc/secret.png", "C:\\secret.png"])
def test_absolute_paths_are_refused(tmp_path: Path, file: str) -> None:
    site = write_site(tmp_path, [], images=False)
    (tmp_path / "manifest.csv").write_text(f"file,label,group\n{file},head,p\n")
    refused(site, ExitCode.MANIFEST_INVALID, "Row 2, column 'file': must be relative")


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(tmp_path: Path) -> None:
    write_image(tmp_path / "secret.png", 1)
    root = tmp_path / "root"
    site = write_site(root, [("a.png", "head", "p1")])
    (root / "inside.png").symlink_to(root / "a.png")
    (root / "manifest.csv").write_text("file,label,group\ninside.png,head,p1\n")
    assert len(read_manifest(site, ONTOLOGY)) == 1
    (root / "leak.png").symlink_to(tmp_path / "secret.png")
    (root / "manifest.csv").write_text("file,label,group\nleak.png,head,p1\n")
    refused(site, ExitCode.MANIFEST_INVALID, "Row 2: the file is a link")


def test_bad_tables(tmp_path: Path) -> None:
    site = write_site(tmp_path, [("secret.png", "head", "p1")])
    manifest = tmp_path / "manifest.csv"

    def table(text: str) -> None:
        manifest.write_text(text)

    table("file,label,group\nsecret.png,head,p1\nsecret.png,head,p1\n")
    refused(site, ExitCode.MANIFEST_INVALID, "Rows 2 and 3 name the same file")
    table("file,label,group\nsecret.png,head,p1\nsecret2.png,head,p1,9,9\n")
    refused(site, ExitCode.MANIFEST_INVALID, "Row 3 of the manifest")
    table("file,label,group\nmissing-secret.png,head,p1\n")
    refused(site, ExitCode.DATA_UNREADABLE, "Row 2: the image is missing")
    table("file,label,group,split\nsecret.png,head,p1,dev\n")
    refused(site, ExitCode.MANIFEST_INVALID, "Row 2, column 'split': must be train, val or test")
    table("file,label,group,frame\nsecret.png,head,p1,first\n")
    refused(site, ExitCode.MANIFEST_INVALID, "Row 2, column 'frame'")
    table("file,label,group\nsecret.png,,p1\n")
    refused(site, ExitCode.MANIFEST_INVALID, "Row 2, column 'label'")
    table("file,label,group\nsecret.png,head,\n")
    refused(site, ExitCode.SPLIT_LEAK, "Row 2 has no group")
    table("file,file,label\nsecret.png,secret.png,head\n")
    refused(site, ExitCode.MANIFEST_INVALID, "repeated names")
    table("file,group\nsecret.png,p1\n")
    refused(site, ExitCode.MANIFEST_INVALID, "no column 'label'")
    table("")
    refused(site, ExitCode.MANIFEST_INVALID, "not a row of the table")
    manifest.write_bytes(b"file,label,group\n\xff\xfe,head,p1\n")
    refused(site, ExitCode.MANIFEST_INVALID, "UTF-8")
    manifest.unlink()
    refused(site, ExitCode.DATA_NOT_FOUND, "manifest CSV does not exist")
    refused(SiteDataConfig(root=tmp_path / "secret"), ExitCode.DATA_NOT_FOUND, "image folder does not exist")


def test_a_wrong_column_map_is_refused(tmp_path: Path) -> None:
    site = write_site(tmp_path, [("a.png", "head", "p1")])
    refused(site.model_copy(update={"column_map": {"label": "Plane"}}), ExitCode.MANIFEST_INVALID, "'Plane'")
    refused(site.model_copy(update={"column_map": {"colour": "x"}}), ExitCode.MANIFEST_INVALID, "'colour'")


def test_ungrouped_rows_need_the_sites_consent(tmp_path: Path) -> None:
    site = write_site(tmp_path, [("a.png", "head")], "file,label")
    refused(site, ExitCode.SPLIT_LEAK, "Row 2 has no group")
    (row,) = read_manifest(site.model_copy(update={"allow_ungrouped": True}), ONTOLOGY)
    assert row.group == ""
