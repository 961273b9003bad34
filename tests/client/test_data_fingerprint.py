"""The fingerprint follows what a round would see: rows, labels, pixels; not times, not where the folder lies."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from client import content_hashes
from client.data_fingerprint import DATA_FOLDER, DataChanges, DataFingerprint, SiteDataWatch
from semc.config import SiteConfig
from semc.config.site import SplitConfig
from tests.semc.datasets.tiny_site import patients, write_image, write_site


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    """Return a hospital of four patients with three images each."""
    data = write_site(tmp_path / "images", patients(4))
    return SiteConfig(site="north", data=data, state_directory=tmp_path / "state")


def with_data(site: SiteConfig, **changes: object) -> SiteConfig:
    return site.model_copy(update={"data": site.data.model_copy(update=changes)})


def turn_a_pixel(path: Path) -> None:
    """Invert the first pixel; the image is stored without compression."""
    with Image.open(path) as image:
        value = image.getpixel((0, 0))
        assert isinstance(value, int)
        image.putpixel((0, 0), 255 - value)
        image.save(path, compress_level=0)


def manifest(site: SiteConfig) -> Path:
    return site.data.root / "manifest.csv"


def change(site: SiteConfig, old: str, new: str) -> None:
    text = manifest(site).read_text()
    assert text.count(old) == 1
    manifest(site).write_text(text.replace(old, new))


def counted(site: SiteConfig, before: DataFingerprint) -> DataChanges:
    now = SiteDataWatch(site).now()
    assert now != before
    return now.changes_since(before.rows)


def test_it_is_of_the_content_alone(site: SiteConfig, tmp_path: Path) -> None:
    before = SiteDataWatch(site).now()
    assert SiteDataWatch(site).now() == before
    shutil.copytree(site.data.root, tmp_path / "elsewhere")
    moved = with_data(site, root=tmp_path / "elsewhere").model_copy(
        update={"state_directory": tmp_path / "other"}
    )
    assert SiteDataWatch(moved).now() == before
    for image in site.data.root.glob("*.png"):
        os.utime(image, ns=(1, 1))
    os.utime(manifest(site))
    assert SiteDataWatch(site).now() == before


def test_every_kind_of_change_is_counted(site: SiteConfig) -> None:
    before = SiteDataWatch(site).now()
    turn_a_pixel(site.data.root / "p0_0.png")
    change(site, "p1_0.png,abdomen", "p1_0.png,head")
    change(site, "p2_0.png,femur,p2\n", "")
    write_image(site.data.root / "new.png", 99)
    with manifest(site).open("a") as stream:
        stream.write("new.png,head,p9\n")
    assert counted(site, before) == DataChanges(added=1, removed=1, changed=2)


@pytest.mark.parametrize(
    ("old", "new"), [("p3_0.png,head,p3", "p3_0.png,head,p2"), ("file,label,group", "file,label,device")]
)
def test_patients_count(site: SiteConfig, old: str, new: str) -> None:
    before = SiteDataWatch(site).now()
    change(site, old, new)
    assert counted(site, before).changed >= 1


def test_order_and_rules_count_without_a_changed_image(site: SiteConfig) -> None:
    before = SiteDataWatch(site).now()
    other = with_data(site, split=SplitConfig(seed=7))
    assert "by other rules" in str(counted(other, before))
    header, first, second, *rest = manifest(site).read_text().splitlines()
    manifest(site).write_text("\n".join([header, second, first, *rest]) + "\n")
    assert "another order" in str(counted(site, before))


def test_rows_left_out_on_purpose_may_change(site: SiteConfig) -> None:
    with manifest(site).open("a") as stream:
        stream.write("nowhere.png,report,p9\n")
    ignoring = with_data(site, ignore_labels=("report",))
    before = SiteDataWatch(ignoring).now()
    change(ignoring, "nowhere.png,report,p9\n", "elsewhere.png,report,p9\n")
    assert SiteDataWatch(ignoring).now() == before


def test_a_watch_sees_what_changes_while_it_lives(site: SiteConfig) -> None:
    watch = SiteDataWatch(site)
    before = watch.now()
    assert watch.now() is before
    turn_a_pixel(site.data.root / "p0_0.png")
    changed = watch.now()
    assert changed != before
    (site.data.root / "p0_1.png").unlink()
    missing = watch.now()
    assert missing not in (before, changed)
    (site.data.root / "p0_1.png").symlink_to(site.data.root / "p0_2.png")
    assert watch.now() not in (before, changed, missing)


def test_an_image_outside_of_the_folder_is_never_opened(site: SiteConfig, tmp_path: Path) -> None:
    before = SiteDataWatch(site).now()
    write_image(tmp_path / "outside.png", 5)
    change(site, "p0_0.png", "../outside.png")
    outside = SiteDataWatch(site).now()
    assert outside != before
    turn_a_pixel(tmp_path / "outside.png")
    assert SiteDataWatch(site).now() == outside


def test_files_are_read_once_also_after_a_restart(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    digest = content_hashes.hashlib.file_digest

    def counting(stream: object, name: str) -> object:
        read.append(stream.name)  # type: ignore[attr-defined]
        return digest(stream, name)  # type: ignore[type-var]

    monkeypatch.setattr(content_hashes.hashlib, "file_digest", counting)
    before = SiteDataWatch(site).now()
    assert len(read) == 12
    watch = SiteDataWatch(site)
    assert watch.now() == watch.now() == before
    assert len(read) == 12
    os.utime(site.data.root / "p0_0.png")
    assert SiteDataWatch(site).now() == before
    assert len(read) == 13
    (site.state_directory / DATA_FOLDER / "content.json").write_text("{damaged")
    assert SiteDataWatch(site).now() == before
    assert len(read) == 25


def test_what_is_kept_names_no_file_and_no_patient(site: SiteConfig) -> None:
    before = SiteDataWatch(site).now()
    kept = [file for file in (site.state_directory / DATA_FOLDER).iterdir() if file.is_file()]
    assert len(kept) == 2
    text = "".join(file.read_text() for file in kept)
    assert before.sha256 in text, "the control: this is where it would be"
    assert not [row for row in patients(4) if row[0] in text or f'"{row[2]}"' in text]
    assert SiteDataWatch(site).rows_of(before.sha256) == before.rows
    assert SiteDataWatch(site).rows_of("0" * 64) is None


def test_folders_as_labels_are_watched_too(tmp_path: Path) -> None:
    for number, place in enumerate(("train/head/0", "train/femur/0", "test/head/0", "test/femur/0")):
        write_image(tmp_path / "lp" / f"{place}.png", number)
    data = {"root": tmp_path / "lp", "format": "lp2025", "allow_ungrouped": True}
    site = SiteConfig(site="north", data=data, state_directory=tmp_path / "state")
    watch = SiteDataWatch(site)
    before = watch.now()
    write_image(tmp_path / "lp" / "train" / "head" / "1.png", 9)
    assert watch.now().changes_since(before.rows) == DataChanges(1, 0, 0)


def test_a_full_disk_only_costs_reading_again(site: SiteConfig, caplog: pytest.LogCaptureFixture) -> None:
    site.state_directory.mkdir()
    (site.state_directory / DATA_FOLDER).write_text("a file where the folder should be")
    assert SiteDataWatch(site).now() == SiteDataWatch(site).now()
    assert "could not be kept" in caplog.text
