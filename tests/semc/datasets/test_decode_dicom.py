from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid

from semc.datasets.decode_dicom import decode_dicom
from semc.datasets.stills import read_still
from semc.exit_codes import ExitCode, SemcError

REAL = Path(__file__).parents[3].parent / "shared" / "data" / "itkpocus_apache"
GREY = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
LIMIT = 10_000


def write(path: Path, stored: np.ndarray, photometric: str = "MONOCHROME2", **tags: object) -> Path:
    """Write stored values [H, W], [T, H, W] (with NumberOfFrames) or [H, W, 3] as a DICOM file."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.PatientBirthDate = "SECRET^NAME", "secret-id", "19700101"
    colour = stored.shape[-1] == 3
    data.Rows, data.Columns = stored.shape[-3:-1] if colour else stored.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 3 if colour else 1, photometric
    if colour:
        data.PlanarConfiguration = 0
    bits = stored.dtype.itemsize * 8
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit, data.PixelRepresentation = bits - 1, int(stored.dtype.kind == "i")
    for name, value in tags.items():
        setattr(data, name, value)
    data.PixelData = stored.tobytes()
    data["PixelData"].VR = "OW" if bits == 16 else "OB"
    data.save_as(path, enforce_file_format=True)
    return path


def test_eight_bit_grey_as_it_is_and_inverted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", GREY)
    np.testing.assert_array_equal(decode_dicom(path, 0, LIMIT), GREY)
    path = write(tmp_path / "b.dcm", 255 - GREY, "MONOCHROME1")
    np.testing.assert_array_equal(decode_dicom(path, 0, LIMIT), GREY)


def test_colour_stays_and_grey_as_colour_becomes_grey(tmp_path: Path) -> None:
    colour = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)
    np.testing.assert_array_equal(decode_dicom(write(tmp_path / "a.dcm", colour, "RGB"), 0, LIMIT), colour)
    same = np.repeat(GREY[..., None], 3, axis=-1)
    np.testing.assert_array_equal(decode_dicom(write(tmp_path / "b.dcm", same, "RGB"), 0, LIMIT), GREY)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_a_window_is_what_the_standard_says(tmp_path: Path, dtype: type) -> None:
    """Oracle: PS3.3 C.11.2.1.2, value by value, after slope and intercept."""
    stored = (GREY.astype(np.int32) * 7 - (300 if dtype is np.int16 else 0)).astype(dtype)
    slope, intercept, centre, width = 2.0, -50.0, 900.0, 1200.0
    path = write(
        tmp_path / "a.dcm",
        stored,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        WindowCenter=[centre, 1.0],
        WindowWidth=[width, 2.0],
    )
    expected = np.empty(GREY.shape)
    for place, value in np.ndenumerate(stored):
        x = float(value) * slope + intercept
        if x <= centre - 0.5 - (width - 1) / 2:
            expected[place] = 0
        elif x > centre - 0.5 + (width - 1) / 2:
            expected[place] = 255
        else:
            expected[place] = ((x - (centre - 0.5)) / (width - 1) + 0.5) * 255
    decoded = decode_dicom(path, 0, LIMIT)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded - expected).max() <= 0.5 + 1e-9
    assert len(np.unique(decoded)) > 50


def test_sixteen_bit_without_a_window_is_spread_over_its_own_range(tmp_path: Path) -> None:
    stored = GREY.astype(np.uint16) * 16 + 1000
    decoded = decode_dicom(write(tmp_path / "a.dcm", stored), 0, LIMIT)
    assert (decoded.min(), decoded.max()) == (0, 255)
    expected = (GREY.astype(float) - GREY.min()) / (int(GREY.max()) - int(GREY.min())) * 255
    assert np.abs(decoded - expected).max() <= 0.5 + 1e-9
    flat = decode_dicom(write(tmp_path / "b.dcm", np.full((4, 4), 700, np.uint16)), 0, LIMIT)
    assert not flat.any()


def test_the_listed_frame_of_several(tmp_path: Path) -> None:
    stored = np.stack([GREY, GREY[::-1], 255 - GREY])
    path = write(tmp_path / "a.dcm", stored, NumberOfFrames=3)
    for frame in range(3):
        np.testing.assert_array_equal(decode_dicom(path, frame, LIMIT), stored[frame])
    with pytest.raises(ValueError, match="no such frame"):
        decode_dicom(path, 3, LIMIT)
    np.testing.assert_array_equal(decode_dicom(write(tmp_path / "b.dcm", GREY), 5, LIMIT), GREY)


def test_no_tag_value_in_errors_warnings_or_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write(tmp_path / "secret.dcm", GREY, SpecificCharacterSet="SECRET_SET")
        caplog.clear()
        pydicom.dcmread(path)
        assert "SECRET_SET" in caplog.text, "control: pydicom itself logs the tag"
        caplog.clear()
        warnings.simplefilter("error")
        read_still(path, 0, 4)
    assert not caplog.text
    large = write(tmp_path / "large.dcm", GREY)
    with pytest.raises(ValueError, match=r"^too many pixels$"):
        decode_dicom(large, 0, 100)
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(path.read_bytes()[:-200])
    none = tmp_path / "none.dcm"
    data = pydicom.dcmread(large)
    del data.PixelData
    data.save_as(none)
    for bad in (broken, none, tmp_path / "missing.dcm"):
        with pytest.raises(SemcError, match="Row 4") as caught:
            read_still(bad, 0, 4)
        assert caught.value.code is ExitCode.DATA_UNREADABLE
        assert "secret" not in str(caught.value).lower()


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason="no handheld scanners' files beside the checkout")
def test_real_files_of_five_makers() -> None:
    """JPEG baseline tagged RGB over a YBR stream with an invalid character set, PNG, JPEG and video."""
    pictures = {}
    for path in sorted(REAL.iterdir()):
        if path.suffix in (".dcm", ".png", ".jpg", ".mp4"):
            pixels = read_still(path, 2 if path.suffix == ".mp4" else 0, 1)
            assert pixels.dtype == np.uint8
            assert pixels.std() > 5, "a picture, not a blank"
            pictures[path.name] = pixels
    assert len(pictures) == 11
    for name in ("sonoque_anechoic-3mm-3mm.dcm", "sonoque_axial-lateral-resolution-2020.dcm"):
        assert pictures[name].shape == (1455, 2083, 3)
        coloured = np.ptp(pictures[name].astype(int), axis=2) > 8
        assert 0 < coloured.sum() < 200, "all is grey but the maker's small mark: YBR was read as YBR"
    first, other = (read_still(REAL / "clarius-ocular-short.mp4", frame, 1) for frame in (0, 3))
    assert first.shape == other.shape
    assert not np.array_equal(first, other)
    with pytest.raises(SemcError):
        read_still(REAL / "clarius-ocular-short.mp4", 10_000, 1)
