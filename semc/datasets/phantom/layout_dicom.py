"""A manifest of DICOM files, drawn by the phantom: five ways in which scanners store a grey picture."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundMultiFrameImageStorage, generate_uid

from semc.datasets.phantom.config import PhantomConfig
from semc.datasets.phantom.still import WrittenStill, all_frames, write_table

_HEADER = "file,label,group,site,split,frame"
_STEPS = 16
"""Stored values per grey level in the 16-bit files."""


def write_dicom(config: PhantomConfig, out: Path) -> list[WrittenStill]:
    """Write every frame; every second patient's planes are files of several frames."""
    written = []
    for (centre, patient, plane), shared in groupby(
        sorted(all_frames(config), key=lambda frame: (frame.centre, frame.patient, frame.plane, frame.frame)),
        key=lambda frame: (frame.centre, frame.patient, frame.plane),
    ):
        frames = list(shared)
        several = int(patient[-1]) % 2 == 0
        names = [
            f"{centre}/{patient}_{plane}{'' if several else f'_{frame.frame:02d}'}.dcm" for frame in frames
        ]
        stills = [
            WrittenStill(name, frame, plane, config, place if several else 0)
            for place, (name, frame) in enumerate(zip(names, frames, strict=True))
        ]
        (out / centre).mkdir(parents=True, exist_ok=True)
        if several:
            _save(np.stack([still.pixels() for still in stills]), out / names[0], "several frames")
        else:
            for still in stills:
                kind = ("plain", "window", "colour", "inverted")[still.frame.frame % 4]
                _save(still.pixels(), out / still.file, kind)
        written += stills
    rows = [
        (still.file, still.label, still.frame.patient, still.frame.centre, still.frame.split, still.index)
        for still in written
    ]
    write_table(out / "manifest.csv", _HEADER, rows)
    return written


def _save(pixels: NDArray[np.uint8], path: Path, kind: str) -> None:
    """Write 8-bit grey [H, W] or frames [T, H, W], stored as `kind` says."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.PatientName, data.PatientID = "US", "SYNTHETIC^PHANTOM", "SYNTHETIC"
    data.Rows, data.Columns = pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    stored: NDArray[np.uint8] | NDArray[np.uint16] = pixels
    if kind == "several frames":
        data.NumberOfFrames = len(pixels)
    elif kind == "inverted":
        data.PhotometricInterpretation, stored = "MONOCHROME1", 255 - pixels
    elif kind == "colour":
        data.PhotometricInterpretation, data.SamplesPerPixel, data.PlanarConfiguration = "RGB", 3, 0
        stored = np.repeat(pixels[..., None], 3, axis=-1)
    elif kind == "window":
        # Rescaled values v - 100 under the window [-100, 255 * steps - 100]; 12 of 16 bits are used.
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
        data.RescaleSlope, data.RescaleIntercept = 1, -100
        data.WindowWidth = 255 * _STEPS + 1
        data.WindowCenter = 255 * _STEPS / 2 + 0.5 - 100
        stored = pixels.astype(np.uint16) * _STEPS
    data.PixelData = stored.tobytes()
    data["PixelData"].VR = "OW" if data.BitsAllocated == 16 else "OB"
    data.save_as(path, enforce_file_format=True)
