from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semc.config import DataConfig, SiteDataConfig
from semc.datasets import build_site_data, decode_image
from semc.datasets.phantom import PhantomConfig, describe_phantom, plan_centre, render_frame, write_phantom

CONFIG = PhantomConfig(
    image_size=32,
    centre_names=("north", "south"),
    patients_per_centre=14,
    test_patients_per_centre=6,
    frames_per_patient=4,
    class_prior=None,
    severity=0.0,
)
DATA = DataConfig(classes=CONFIG.classes, image_size=32)


def test_the_manifest_reads_back_to_the_same_rows_and_pixels(tmp_path: Path) -> None:
    manifest = write_phantom(CONFIG, tmp_path)
    frames = [frame for centre in CONFIG.all_centres() for frame in plan_centre(CONFIG, centre)]
    assert manifest.read_text().splitlines()[0] == "file,label,group,site,split,acquisition,device,frame"
    site = SiteDataConfig(root=tmp_path)
    built = build_site_data(site, DATA, 8)
    rows = sorted((*built.train, *built.validation, *built.test), key=lambda row: row.index)
    assert len(rows) == len(frames)
    for row, frame in zip(rows, frames, strict=True):
        assert CONFIG.classes[row.label] == frame.plane
        assert (row.group, row.centre, row.frame) == (
            f"{frame.centre}/{frame.patient}",
            frame.centre,
            frame.frame,
        )
        assert (row.split == "test") is (frame.split == "test")
    for row, frame in list(zip(rows, frames, strict=True))[::17]:
        np.testing.assert_array_equal(decode_image(row, DATA, site), render_frame(CONFIG, frame))


def test_lp2025_folders_read_back_to_the_same_labels_and_splits(tmp_path: Path) -> None:
    write_phantom(CONFIG, tmp_path, layout="lp2025")
    built = build_site_data(SiteDataConfig(root=tmp_path, format="lp2025", allow_ungrouped=True), DATA, 8)
    assert built.ungrouped
    planned = [frame for centre in CONFIG.all_centres() for frame in plan_centre(CONFIG, centre)]
    assert len(built.test) == sum(frame.split == "test" for frame in planned)
    assert len(built.train) + len(built.validation) == sum(frame.split == "train" for frame in planned)
    assert all(CONFIG.classes[row.label] == row.path.parent.name for row in built.train)


@pytest.mark.parametrize("severity", [0.0, 1.0])
def test_files_do_not_depend_on_the_number_of_processes(tmp_path: Path, severity: float) -> None:
    config = CONFIG.model_copy(update={"severity": severity})
    write_phantom(config, tmp_path / "one")
    write_phantom(config, tmp_path / "two", workers=2)
    one, two = (
        sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.*"))
        for name in ("one", "two")
    )
    assert one == two
    assert all(
        (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in one
    )


def test_jpeg_centres_write_jpeg_close_to_the_pixels(tmp_path: Path) -> None:
    config = CONFIG.model_copy(
        update={"severity": 0.7, "centre_names": ("a", "b", "c", "d", "e"), "image_size": 48}
    )
    quality = {
        name: entry["style"]["jpeg_quality"] for name, entry in describe_phantom(config)["centres"].items()
    }
    assert None in quality.values()
    assert any(quality.values())
    write_phantom(config, tmp_path)
    for name, value in quality.items():
        files = sorted((tmp_path / name).iterdir())
        assert {file.suffix for file in files} == ({".png"} if value is None else {".jpg"})
        frame = min(plan_centre(config, name), key=lambda one: f"{one.patient}_{one.plane}_{one.frame:02d}")
        difference = np.abs(np.asarray(Image.open(files[0]), dtype=float) - render_frame(config, frame))
        assert difference.mean() < (1e-9 if value is None else 12)


def test_the_description_says_synthetic(tmp_path: Path) -> None:
    write_phantom(CONFIG, tmp_path)
    described = json.loads((tmp_path / "phantom.json").read_text())
    assert described == json.loads(json.dumps(describe_phantom(CONFIG)))
    assert described["synthetic"] is True
    assert set(described["centres"]) == {"north", "south"}
    assert sum(described["centres"]["north"]["class_shares"].values()) == pytest.approx(1)
    with (tmp_path / "manifest.csv").open() as stream:
        assert all(row["device"].startswith("phantom-") for row in csv.DictReader(stream))
