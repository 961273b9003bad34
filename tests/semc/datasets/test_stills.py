from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from semc.datasets.cohort_table import CohortTable, table_from
from semc.datasets.stills import read_still, write_stills
from semc.exit_codes import ExitCode, SemcError

GREY = np.random.default_rng(1).integers(0, 256, (18, 26), dtype=np.uint8)


def volume(path: Path, values: np.ndarray) -> Path:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(path))
    return path


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mhd", ".mha"])
def test_stills_and_frames_of_volumes_keep_rows_and_columns(tmp_path: Path, ending: str) -> None:
    still = volume(tmp_path / f"still{ending}", GREY)
    np.testing.assert_array_equal(read_still(still, 0, 1), GREY)
    np.testing.assert_array_equal(read_still(still, 7, 1), GREY, err_msg="a still has one frame only")
    frames = np.stack([GREY, GREY[:, ::-1], 255 - GREY])
    sequence = volume(tmp_path / f"sequence{ending}", frames)
    for frame in range(3):
        np.testing.assert_array_equal(read_still(sequence, frame, 1), frames[frame])
    np.testing.assert_array_equal(read_still(volume(tmp_path / f"one{ending}", GREY[None]), 4, 1), GREY)
    as_float = volume(tmp_path / f"float{ending}", GREY.astype(np.float32))
    np.testing.assert_array_equal(read_still(as_float, 0, 1), GREY)
    for bad in (
        (sequence, 3),
        (volume(tmp_path / f"wide{ending}", GREY.astype(np.int16) * 5), 0),
        (volume(tmp_path / f"negative{ending}", -GREY.astype(np.int16)), 0),
        (tmp_path / f"missing{ending}", 0),
    ):
        with pytest.raises(SemcError, match="Row 9") as caught:
            read_still(*bad, 9)
        assert caught.value.code is ExitCode.DATA_UNREADABLE


def test_frames_of_a_video_by_number(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for grey in (40, 120, 200):
        writer.write(np.full((48, 64, 3), grey, np.uint8))
    writer.release()
    for frame, grey in enumerate((40, 120, 200)):
        pixels = read_still(path, frame, 1)
        assert pixels.shape[:2] == (48, 64)
        assert abs(float(pixels.mean()) - grey) < 4
    with pytest.raises(SemcError, match="Row 5"):
        read_still(path, 3, 5)


def test_a_mixed_cohort_becomes_images(tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    (root / "sub").mkdir(parents=True)
    Image.fromarray(GREY).save(root / "a.png")
    volume(root / "sub" / "b.mha", np.stack([GREY, 255 - GREY]))
    records = [
        {"file": "a.png", "label": "x", "group": "1", "frame": "12"},
        {"file": "sub/b.mha", "label": "x", "group": "1", "frame": "0"},
        {"file": "sub/b.mha", "label": "y", "group": "1", "frame": "1"},
    ]
    table = CohortTable("manifest", root, table_from(records))
    written = write_stills(table, out)
    assert written.root == out
    assert written.images["file"].tolist() == ["a.png", "sub/b.mha_0000.png", "sub/b.mha_0001.png"]
    assert written.images["label"].tolist() == ["x", "x", "y"]
    np.testing.assert_array_equal(np.asarray(Image.open(out / "sub" / "b.mha_0001.png")), 255 - GREY)
    only_images = CohortTable("manifest", root, table_from(records[:1]))
    assert write_stills(only_images, tmp_path / "unused") is only_images
    assert not (tmp_path / "unused").exists()


def test_a_volume_outside_the_folder_is_refused(tmp_path: Path) -> None:
    volume(tmp_path / "secret.mha", GREY)
    (tmp_path / "in").mkdir()
    table = CohortTable("manifest", tmp_path / "in", table_from([{"file": "../secret.mha", "label": "x"}]))
    with pytest.raises(SemcError, match="Row 1") as caught:
        write_stills(table, tmp_path / "out")
    assert caught.value.code is ExitCode.MANIFEST_INVALID
    assert "secret" not in str(caught.value)


def test_a_header_that_points_elsewhere_is_refused(tmp_path: Path) -> None:
    """A MetaImage header names its raw file; control: beside it is fine."""
    volume(tmp_path / "a.mhd", GREY)
    (tmp_path / "sub").mkdir()
    text = (tmp_path / "a.mhd").read_text()
    for target in ("../a.raw", str(tmp_path / "a.raw")):
        (tmp_path / "sub" / "b.mhd").write_text(text.replace("a.raw", target))
        with pytest.raises(SemcError, match="Row 3"):
            read_still(tmp_path / "sub" / "b.mhd", 0, 3)
    (tmp_path / "sub" / "a.raw").write_bytes((tmp_path / "a.raw").read_bytes())
    (tmp_path / "sub" / "b.mhd").write_text(text)
    np.testing.assert_array_equal(read_still(tmp_path / "sub" / "b.mhd", 0, 3), GREY)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mhd", ".mha", ".dcm", ".mp4", ".avi", ".png"])
def test_damaged_files_print_no_path(
    tmp_path: Path, ending: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"secret{ending}"
    for content in (b"", b"not a picture at all" * 40):
        path.write_bytes(content)
        with pytest.raises(SemcError, match="Row 2"):
            read_still(path, 0, 2)
    printed = capfd.readouterr()
    assert "secret" not in printed.out + printed.err + caplog.text
