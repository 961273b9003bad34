from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from semc.config import SiteDataConfig
from semc.datasets import build_site_data, check_images
from semc.exit_codes import ExitCode, SemcError

from .tiny_site import CLASSES, DATA, patients, write_image, write_site


def refused(site: SiteDataConfig, code: ExitCode, says: str, batch_size: int = 4) -> None:
    with pytest.raises(SemcError, match=says) as caught:
        build_site_data(site, DATA, batch_size)
    assert caught.value.code is code


def test_a_site_is_read_split_and_counted(tmp_path: Path) -> None:
    built = build_site_data(write_site(tmp_path, patients(18)), DATA, 8)
    assert len(built.train) + len(built.validation) + len(built.test) == 54
    assert sum(built.class_counts) == len(built.train)
    assert not built.ungrouped
    groups = [{row.group for row in rows} for rows in (built.train, built.validation, built.test)]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
    assert {row.split for row in built.test} == {"test"}


def test_a_site_lacking_a_class_keeps_the_others_ids(tmp_path: Path) -> None:
    rows = [row for row in patients(18) if row[1] != "head"]
    built = build_site_data(write_site(tmp_path, rows), DATA, 8)
    assert built.class_counts[0] == 0
    assert min(built.class_counts[1:]) > 0
    assert {row.label for row in built.train} == {1, 2}


def test_a_copied_file_merges_patients_before_the_split(tmp_path: Path) -> None:
    rows = patients(12)
    site = write_site(tmp_path, rows)
    (tmp_path / "p0_0.png").write_bytes((tmp_path / "p3_0.png").read_bytes())
    built = build_site_data(site, DATA, 4)
    assert built.num_merged_groups == 1
    of_pair = {
        row.split for row in (*built.train, *built.validation, *built.test) if row.group in ("p0", "p3")
    }
    assert len(of_pair) == 1


def test_what_cannot_be_trained_on_is_refused(tmp_path: Path) -> None:
    refused(SiteDataConfig(root=tmp_path / "none"), ExitCode.DATA_NOT_FOUND, "folder does not exist")
    single = write_site(tmp_path / "single", [row for row in patients(30) if row[1] == "head"])
    refused(single, ExitCode.CLASSES_TOO_FEW, "1 class")
    site = write_site(tmp_path / "few", patients(12))
    refused(site, ExitCode.IMAGES_TOO_FEW, "one batch needs 64", batch_size=64)
    unknown = write_site(tmp_path / "unknown", [*patients(12), ("x.png", "spine", "p99")])
    refused(unknown, ExitCode.LABEL_UNKNOWN, "Row 38")


def test_an_empty_split_is_refused_unless_the_site_wants_none(tmp_path: Path) -> None:
    rows = [(f"{label}.png", label, label) for label in CLASSES]
    site = write_site(tmp_path, rows)
    refused(
        site, ExitCode.SPLIT_EMPTY, "validation split has no images.*validation_fraction: 0", batch_size=2
    )
    without = site.split.model_copy(update={"validation_fraction": 0.0, "test_fraction": 0.0})
    assert len(build_site_data(site.model_copy(update={"split": without}), DATA, 2).train) == 3
    all_test = [(*row, "test") for row in patients(6)]
    refused(
        write_site(tmp_path / "t", all_test, "file,label,group,split"), ExitCode.SPLIT_EMPTY, "train split"
    )


def test_wrong_modes_and_damaged_headers_are_met_before_training(tmp_path: Path) -> None:
    site = write_site(tmp_path, patients(12))
    write_image(tmp_path / "p4_1.png", 1, mode="1")
    refused(site, ExitCode.IMAGE_MODE, "Row 15")
    (tmp_path / "p4_1.png").write_bytes(b"not an image")
    refused(site, ExitCode.DATA_UNREADABLE, "Row 15")


def test_check_images_finds_every_damaged_image(tmp_path: Path) -> None:
    site = write_site(tmp_path, patients(12))
    for name in ("p2_0.png", "p7_2.png"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    built = build_site_data(site, DATA, 4)
    rows = (*built.train, *built.validation, *built.test)
    check = check_images(rows, DATA, site)
    assert check.num_checked == 36
    assert {error.code for error in check.errors} == {ExitCode.DATA_UNREADABLE}
    assert {error.problem.split(":")[0] for error in check.errors} == {"Row 8", "Row 25"}


def test_metadata_never_reaches_the_pixels(tmp_path: Path) -> None:
    """A text chunk with a name changes the file and nothing that is read from it."""
    site = write_site(tmp_path, patients(12))
    from PIL.PngImagePlugin import PngInfo

    from semc.datasets import decode_image

    row = build_site_data(site, DATA, 4).train[0]
    before = decode_image(row, DATA, site)
    text = PngInfo()
    text.add_text("PatientName", "Jane")
    Image.fromarray(before).save(row.path, pnginfo=text)
    assert (decode_image(row, DATA, site) == before).all()
