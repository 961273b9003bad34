"""Image files to pixels only: 8-bit grey [H, W] or RGB [H, W, 3], bounded, by row number.

Only raster formats that Pillow decodes itself are opened (no PostScript interpreter). Metadata is not read.
An RGB image whose channels agree is returned as grey, which is a third of the memory and the same network
input.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semc.config.data import DataConfig
from semc.config.site import SiteDataConfig
from semc.datasets.sample import ManifestRow, SourceRow
from semc.exit_codes import ExitCode, SemcError

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")
_GREY_MODES = frozenset({"L"})
_COLOUR_MODES = frozenset({"RGB", "P", "RGBA"})


def check_header(row: SourceRow | ManifestRow, data: DataConfig, site: SiteDataConfig) -> None:
    """Refuse what the header alone shows: an unknown format, a wrong pixel mode, too many pixels or frames.

    Raises:
        SemcError: DATA_UNREADABLE or IMAGE_MODE, with the row number.
    """
    with _opened(row.path, row.index) as image:
        _check(image, row.index, data, site.max_pixels)


def decode_image(row: SourceRow | ManifestRow, data: DataConfig, site: SiteDataConfig) -> NDArray[np.uint8]:
    """Return an image's pixels, uint8 [H, W] or [H, W, 3].

    Args:
        row: The file and its row number, for messages.
        data: The study's accepted image mode.
        site: The site's limit on the image's area.

    Raises:
        SemcError: DATA_UNREADABLE (not an image, truncated, too large) or IMAGE_MODE.
    """
    with _opened(row.path, row.index) as image:
        _check(image, row.index, data, site.max_pixels)
        if image.mode == "L":
            return np.asarray(image)
        if image.mode == "RGB":
            return _grey_if_equal(np.asarray(image))
        pixels_HW4 = np.asarray(image.convert("RGBA"))
    if pixels_HW4[..., 3].min() < 255:
        raise _mode(row.index, "has transparent pixels")
    return _grey_if_equal(np.ascontiguousarray(pixels_HW4[..., :3]))


@contextmanager
def _opened(path: Path, row: int) -> Iterator[Image.Image]:
    """Open a file; whatever a codec raises on a damaged or hostile one becomes DATA_UNREADABLE."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            yield image
    except SemcError:
        raise
    except Exception as error:
        raise SemcError(
            ExitCode.DATA_UNREADABLE,
            f"Row {row}: the image cannot be decoded.",
            "export it again as PNG or JPEG, or remove the row",
        ) from error


def _check(image: Image.Image, row: int, data: DataConfig, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise SemcError(
            ExitCode.DATA_UNREADABLE,
            f"Row {row}: the image has {image.width * image.height} pixels, more than {max_pixels}.",
            "export it smaller, or raise data.max_pixels",
        )
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise SemcError(
            ExitCode.DATA_UNREADABLE,
            f"Row {row}: the file holds several frames.",
            "export every frame as its own image",
        )
    accepted = {"any": _GREY_MODES | _COLOUR_MODES, "grey": _GREY_MODES, "rgb": _COLOUR_MODES}[
        data.image_mode
    ]
    if image.mode not in accepted:
        raise _mode(row, f"has pixel mode {image.mode}, the study accepts {', '.join(sorted(accepted))}")


def _mode(row: int, problem: str) -> SemcError:
    return SemcError(
        ExitCode.IMAGE_MODE, f"Row {row}: the image {problem}.", "export as 8-bit grey or opaque RGB PNG"
    )


def _grey_if_equal(pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    first_HW = pixels_HWC[..., 0]
    if np.array_equal(first_HW, pixels_HWC[..., 1]) and np.array_equal(first_HW, pixels_HWC[..., 2]):
        return np.ascontiguousarray(first_HW)
    return pixels_HWC
