"""DICOM files to pixels only: one frame as 8-bit grey [H, W] or RGB [H, W, 3].

Tags decide how stored values become grey and are then forgotten: no tag value is returned, logged or put into a
message. Greyscale passes rescale and the file's first window; values beyond 8 bit without a window are spread
from the frame's own darkest to its brightest. Text burnt into the pixels stays.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

_LOOKUP_TABLES = ("ModalityLUTSequence", "VOILUTSequence")
_JPEG_TINT = 8
"""Largest difference between channels that a codec's rounding explains, grey levels."""


def decode_dicom(path: Path, frame: int, max_pixels: int) -> NDArray[np.uint8]:
    """Return one frame of a DICOM file, uint8 [H, W] or [H, W, 3].

    Args:
        path: The file.
        frame: Frame, counted from 0; a file of one frame gives that frame whatever is asked.
        max_pixels: Largest area accepted.

    Raises:
        ValueError: No such frame, too large, or no picture in it. Messages hold no tag values.
    """
    with _silent():
        header = pydicom.dcmread(path, stop_before_pixels=True)
        num_frames = int(header.get("NumberOfFrames") or 1)
        if int(header.Rows) * int(header.Columns) > max_pixels:
            raise ValueError("too many pixels")
        index = frame if num_frames > 1 else 0
        if index >= num_frames:
            raise ValueError("no such frame")
        stored = pixel_array(path, index=index)
        if header.PhotometricInterpretation == "PALETTE COLOR":
            stored = apply_color_lut(stored, header)
        if stored.ndim == 3:
            return _grey_if_nearly(_eight_bit(stored))
        grey_HW = _grey(stored, header)
    return 255 - grey_HW if header.PhotometricInterpretation == "MONOCHROME1" else grey_HW


@contextmanager
def _silent() -> Iterator[None]:
    """Keep pydicom's warnings and log lines to itself: they quote tag values."""
    logger = logging.getLogger("pydicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _grey(stored_HW: NDArray[Any], header: pydicom.Dataset) -> NDArray[np.uint8]:
    """Return stored values as 8-bit grey through rescale and window."""
    values_HW = np.asarray(apply_modality_lut(stored_HW, header))
    if "WindowCenter" in header and not any(name in header for name in _LOOKUP_TABLES):
        # A window's output spans the whole range that the stored bits can hold after the rescale.
        signed = int(header.PixelRepresentation)
        ends = np.array([-signed * 2 ** (header.BitsStored - 1), 2 ** (header.BitsStored - signed) - 1])
        low, high = np.asarray(apply_modality_lut(ends, header), dtype=float)
        return _spread(np.asarray(apply_voi_lut(values_HW, header), dtype=float), low, high)
    shown_HW = np.asarray(apply_voi_lut(values_HW, header), dtype=float)
    if shown_HW.min() >= 0 and shown_HW.max() <= 255 and int(header.BitsStored) <= 8:
        return np.round(shown_HW).astype(np.uint8)
    return _spread(shown_HW, float(shown_HW.min()), float(shown_HW.max()))


def _spread(values_HW: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    scale = 255 / (high - low) if high != low else 0.0
    return np.clip(np.round((values_HW - low) * scale), 0, 255).astype(np.uint8)


def _eight_bit(colour_HWC: NDArray[Any]) -> NDArray[np.uint8]:
    """Return colours of 16-bit palettes in 8 bit; the low byte is below what a screen shows."""
    shift = 8 if colour_HWC.dtype == np.uint16 else 0
    return np.asarray(colour_HWC >> shift, dtype=np.uint8)


def _grey_if_nearly(colour_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return grey where the channels agree up to a codec's rounding: scanners send grey images as RGB."""
    wide_HWC = colour_HWC.astype(np.int16)
    if int((wide_HWC.max(axis=2) - wide_HWC.min(axis=2)).max()) <= _JPEG_TINT:
        return np.asarray(np.round(wide_HWC.mean(axis=2)), dtype=np.uint8)
    return colour_HWC
