from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from semc.datasets.cohorts import read_cohort_table
from semc.datasets.stills import read_still
from semc.exit_codes import ExitCode, SemcError

HEADER = (
    "Date added,Current location,Filename,Label,License,Probe,Source ID,Patient ID / Name,DEGUM,,Effusion"
)
ROWS = (
    "20.04.20,data/pocus_videos/Convex,Cov-Clip+1,COVID-19,CC BY 4.0,convex,2,35,,,0",
    "20.04.20,data/pocus_images/linear,Reg-Still.png,regular,CC BY 4.0,linear,2,35,,,0",
    '20.04.20,data/pocus_videos/Linear,Pneu-loop,Bacterial pneumonia,CC BY 4.0,linear,7,,"two\nlines",,0',
    "20.04.20,not used,Cov-Gone,COVID-19,,convex,2,36,,,0",
    ",,,,,,,,,,",
)


def grey(value: int) -> Image.Image:
    return Image.fromarray(np.full((48, 64), value, np.uint8))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    for folder in ("pocus_videos/convex", "pocus_videos/linear", "pocus_images/linear"):
        (data / folder).mkdir(parents=True)
    clip = data / "pocus_videos" / "convex" / "Cov-Clip+1.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for frame in range(12):
        writer.write(np.full((48, 64, 3), 20 * frame, np.uint8))
    writer.release()
    frames = [grey(value) for value in (10, 90, 200)]
    frames[0].save(data / "pocus_videos/linear/Pneu-loop.gif", save_all=True, append_images=frames[1:])
    grey(77).save(data / "pocus_images" / "linear" / "Reg-Still.png")
    (data / "dataset_metadata.csv").write_text("\n".join((HEADER, *ROWS)) + "\n", encoding="utf-8")
    return tmp_path


def test_clips_stills_and_what_is_absent(repository: Path) -> None:
    table = read_cohort_table(repository)
    assert table.cohort == "pocus_repository"
    assert read_cohort_table(repository / "data").images.equals(table.images)
    rows = table.images
    assert dict(rows["label"].value_counts()) == {"COVID-19": 6, "Bacterial pneumonia": 3, "regular": 1}
    assert set(rows["group"]) == {"2/35", "7/"}
    assert rows["frame"].tolist() == ["0", "2", "4", "6", "8", "10", "0", "0", "1", "2"]
    assert "1 clips of the table are not in the folder" in table.notes
    for number, (file, frame, label) in enumerate(
        zip(rows["file"], rows["frame"], rows["label"], strict=True)
    ):
        mean = float(read_still(table.root / file, int(frame), number).mean())
        expected = {"COVID-19": 20 * int(frame), "regular": 77}.get(label, (10, 90, 200)[int(frame) % 3])
        assert abs(mean - expected) < 5


def test_a_row_without_a_label_is_refused(repository: Path) -> None:
    table = repository / "data" / "dataset_metadata.csv"
    table.write_text(table.read_text().replace("Cov-Clip+1,COVID-19", "secret,"))
    with pytest.raises(SemcError, match=r"Row 2 of dataset_metadata\.csv") as caught:
        read_cohort_table(repository)
    assert caught.value.code is ExitCode.MANIFEST_INVALID
    assert "secret" not in str(caught.value)
