"""Stills out of files that a site does not read itself: NIfTI, MetaImage, DICOM and video to PNG.

A site reads images, so a cohort in other formats becomes images once, before hospitals are made of it. Pixels are
kept as they lie on disk: no resampling to square pixels, no transposition (SimpleITK is row-first already).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import SimpleITK
from numpy.typing import NDArray
from PIL import Image

from semc.config.data import DataConfig
from semc.config.site import SiteDataConfig
from semc.datasets.cohort_table import CohortTable
from semc.datasets.decode import decode_image
from semc.datasets.decode_dicom import decode_dicom
from semc.datasets.link_image import link_image
from semc.datasets.manifest import MANY_FRAMES
from semc.datasets.manifest_row import locate
from semc.datasets.sample import SourceRow
from semc.exit_codes import ExitCode, SemcError

_VOLUMES = (".nii", ".nii.gz", ".mhd", ".mha")
_DICOM = (".dcm", ".dicom")
_MAX_PIXELS = 25_000_000
_HEADER_BYTES = 16_384
_ANY = DataConfig(classes=("a", "b"))


def read_still(path: Path, frame: int, row: int) -> NDArray[np.uint8]:
    """Return the picture of a row in any accepted format, uint8 [H, W] or RGB [H, W, 3].

    Args:
        path: Image, volume, DICOM file or video.
        frame: Frame from 0 of a file with several; a file with one gives that one.
        row: Row number for messages.

    Raises:
        SemcError: DATA_UNREADABLE or IMAGE_MODE, with the row number.
    """
    name = path.name.lower()
    if not name.endswith(MANY_FRAMES):
        source = SourceRow(row, path, 0, "", None, "", "", "", 0)
        return decode_image(source, _ANY, SiteDataConfig(root=path.parent, max_pixels=_MAX_PIXELS))
    try:
        if name.endswith(_DICOM):
            return decode_dicom(path, frame, _MAX_PIXELS)
        if name.endswith(".gif"):
            return _gif(path, frame)
        return _volume(path, frame) if name.endswith(_VOLUMES) else _video(path, frame)
    except Exception as error:  # whatever a codec raises on a damaged file
        raise SemcError(
            ExitCode.DATA_UNREADABLE,
            f"Row {row}: the picture cannot be decoded, or the file has no frame {frame}.",
            "export it again, or remove the row",
        ) from error


def write_stills(table: CohortTable, folder: Path) -> CohortTable:
    """Write every row's picture into `folder`, where any of them is not an image that a site reads.

    Returns:
        The table with the new root and file names; unchanged where every file is an image already.

    Raises:
        SemcError: DATA_UNREADABLE, IMAGE_MODE or MANIFEST_INVALID, with the row number.
    """
    files = table.images["file"].tolist()
    if not any(file.lower().endswith(MANY_FRAMES) for file in files):
        return table
    frames = table.images["frame"].tolist() if "frame" in table.images else ["0"] * len(files)
    root = table.root.resolve()
    written = []
    for row, file, frame in zip(table.images.index, files, frames, strict=True):
        path = locate(root, file, int(row))
        target = f"{file}_{int(frame or 0):04d}.png" if file.lower().endswith(MANY_FRAMES) else file
        place = folder / target
        place.parent.mkdir(parents=True, exist_ok=True)
        if target != file:
            Image.fromarray(read_still(path, int(frame or 0), int(row))).save(place, compress_level=1)
        else:
            link_image(path, place)
        written.append(target)
    return replace(table, root=folder, images=table.images.assign(file=written))


def _volume(path: Path, frame: int) -> NDArray[np.uint8]:
    """Return a still, or one frame of a sequence, of a NIfTI or MetaImage file."""
    if path.suffix.lower() == ".mhd":
        _check_raw_file(path)
    untyped: Any = SimpleITK
    untyped.ProcessObject.GlobalWarningDisplayOff()  # its warnings print the file's path
    reader = untyped.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    size = list(reader.GetSize())
    if len(size) not in (2, 3) or size[0] * size[1] > _MAX_PIXELS:
        raise ValueError("not a still or a sequence of stills")
    if len(size) == 3:
        reader.SetExtractIndex([0, 0, frame if size[2] > 1 else 0])
        reader.SetExtractSize([size[0], size[1], 0])
    values_HW = np.asarray(untyped.GetArrayFromImage(reader.Execute()))
    if values_HW.ndim != 2 or values_HW.min() < 0 or values_HW.max() > 255:
        raise ValueError("not 8-bit grey")
    return np.round(values_HW).astype(np.uint8)


def _check_raw_file(path: Path) -> None:
    """Refuse a MetaImage header that takes its pixels from another folder: any file there would be read."""
    with path.open("rb") as stream:
        header = stream.read(_HEADER_BYTES)
    found = re.search(rb"^ElementDataFile\s*=\s*(.*?)\s*$", header, re.MULTILINE)
    if found is None or b"/" in found[1] or b"\\" in found[1]:
        raise ValueError("no raw file of its own")


def _gif(path: Path, frame: int) -> NDArray[np.uint8]:
    with Image.open(path, formats=("GIF",)) as image:
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError("too many pixels")
        image.seek(frame if getattr(image, "n_frames", 1) > 1 else 0)
        return _grey_if_equal(np.asarray(image.convert("RGB")))


def _video(path: Path, frame: int) -> NDArray[np.uint8]:
    """Return one frame of a video, counted from 0 by decoding: seeking is inexact in some containers."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # its warnings can print the path
    capture = cv2.VideoCapture(str(path))
    try:
        for _ in range(frame):
            if not capture.grab():
                raise ValueError("no such frame")
        read, bgr_HWC = capture.read()
    finally:
        capture.release()
    if not read or bgr_HWC.shape[0] * bgr_HWC.shape[1] > _MAX_PIXELS:
        raise ValueError("no such frame")
    rgb_HWC = np.asarray(cv2.cvtColor(bgr_HWC, cv2.COLOR_BGR2RGB), dtype=np.uint8)
    return _grey_if_equal(rgb_HWC)


def _grey_if_equal(rgb_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if (rgb_HWC == rgb_HWC[..., :1]).all():
        return np.ascontiguousarray(rgb_HWC[..., 0])
    return rgb_HWC
