"""Rows are listed as the site wrote them, before any study; what lies outside of the folder has no place."""

from __future__ import annotations

from pathlib import Path

import pytest

from semc.datasets.listed_images import listed_images, place_of, reading_rules
from semc.exit_codes import ExitCode, SemcError

from .tiny_site import patients, write_image, write_site


def test_rows_are_listed_under_our_names_without_those_left_out(tmp_path: Path) -> None:
    rows = [("a.png", "head", "p1"), ("b.png", "report", "p1"), ("c.png", "no class of any study", "p2")]
    data = write_site(tmp_path, rows, header="picture,label,group")
    data = data.model_copy(update={"column_map": {"file": "picture"}, "ignore_labels": ("report",)})
    listed = listed_images(data)
    assert [(image.row, image.file) for image in listed] == [(2, "a.png"), (4, "c.png")]
    assert listed[0].cells == '{"file": "a.png", "group": "p1", "label": "head"}'
    assert len({image.key for image in listed}) == 2
    assert not any("png" in image.key for image in listed)


def test_places(tmp_path: Path) -> None:
    data = write_site(tmp_path / "images", patients(1))
    write_image(tmp_path / "outside.png", 1)
    write_image(data.root / "short.png", 1)
    (data.root / "link.png").symlink_to(tmp_path / "outside.png")
    names = ("p0_0.png", "short", "link.png", "../outside.png", str(tmp_path / "outside.png"), "gone.png")
    (data.root / "manifest.csv").write_text(
        "file,label,group\n" + "".join(f"{name},head,p\n" for name in names)
    )
    places = [place_of(image, data.root.resolve()) for image in listed_images(data)]
    assert places[:2] == [data.root.resolve() / "p0_0.png", data.root.resolve() / "short.png"]
    assert places[2:] == [None] * 4


def test_rules_are_equal_for_equal_sections(tmp_path: Path) -> None:
    data = write_site(tmp_path, patients(1))
    assert reading_rules(data) == reading_rules(
        data.model_copy(update={"root": tmp_path / "x", "cache_mb": 1})
    )
    assert reading_rules(data) != reading_rules(data.model_copy(update={"label_map": {"a": "head"}}))


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    data = write_site(tmp_path / "images", patients(1))
    with pytest.raises(SemcError) as caught:
        listed_images(data.model_copy(update={"root": tmp_path / "gone"}))
    assert caught.value.code is ExitCode.DATA_NOT_FOUND
    (data.root / "manifest.csv").unlink()
    with pytest.raises(SemcError) as caught:
        listed_images(data)
    assert caught.value.code is ExitCode.DATA_NOT_FOUND
