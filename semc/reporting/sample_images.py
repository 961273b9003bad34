"""Sample images for a report: small, pixels only; whatever a file carried beside its pixels is dropped."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Final

from PIL import Image, UnidentifiedImageError

from semc.exit_codes import ExitCode, SemcError

MAX_SIDE: Final = 256
"""Longest side shown, pixels."""


def thumbnail(encoded: str) -> str:
    """Return an image as the `data:` address of a small PNG without metadata, for an HTML page."""
    return f"data:image/png;base64,{pixels_only(encoded)}"


def pixels_only(encoded: str) -> str:
    """Re-encode an image as a small PNG that holds nothing but pixels.

    Args:
        encoded: Base64 of an image file.

    Returns:
        Base64 of the PNG, longest side at most :data:`MAX_SIDE`.

    Raises:
        SemcError: DATA_UNREADABLE where it is no image.
    """
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))) as image:
            pixels = image.convert("L" if image.mode in ("1", "L", "I", "I;16") else "RGB")
    except (
        binascii.Error,
        UnidentifiedImageError,
        OSError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        raise SemcError(
            ExitCode.DATA_UNREADABLE, "A sample image of the result cannot be decoded.", "leave it out"
        ) from error
    pixels.thumbnail((MAX_SIDE, MAX_SIDE))
    pixels.info.clear()
    stream = io.BytesIO()
    pixels.save(stream, format="PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()
