"""A folder of images without a manifest: rows to adapt to, no labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from semc.config import DataConfig, SiteConfig
from semc.datasets import ManifestRow
from semc.datasets.decode import check_header
from semc.exit_codes import ExitCode, SemcError

NO_LABEL: Final = -1
_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


def unlabelled_rows(folder: Path, data: DataConfig, site: SiteConfig) -> list[ManifestRow]:
    """List a folder's images, those of sub-folders included, in order of their names.

    The images of one sub-folder count as one patient's, so that no exam outweighs the others; an image that lies in
    the folder itself counts as a patient of its own. An image's row number is its place in the list, from 1.

    Args:
        folder: Where the images are; links that leave it are passed over.
        data: The study's accepted image mode.
        site: Limits on image size.

    Raises:
        SemcError: DATA_NOT_FOUND where there is no such folder; DATA_UNREADABLE or IMAGE_MODE, by row number.
    """
    if not folder.is_dir():
        raise SemcError(ExitCode.DATA_NOT_FOUND, "The folder of images does not exist.", "correct --images")
    root = folder.resolve()
    found = sorted(path for path in _files(root) if path.suffix.lower() in _SUFFIXES)
    rows = [
        ManifestRow(
            index=number,
            path=path,
            label=NO_LABEL,
            group=f"row {number}" if path.parent == root else str(path.parent.relative_to(root)),
            split="train",
            centre="",
            acquisition="",
            device="",
            frame=0,
        )
        for number, path in enumerate(found, start=1)
    ]
    for row in rows:
        check_header(row, data, site.data)
    return rows


def num_passed_over(folder: Path) -> int:
    """Return how many of a folder's files :func:`unlabelled_rows` does not read: DICOM, video, text, anything else."""
    return sum(path.suffix.lower() not in _SUFFIXES for path in _files(folder.resolve()))


def _files(root: Path) -> Iterator[Path]:
    """Yield the files below a folder; links that leave it are passed over."""
    return (path for path in root.rglob("*") if path.is_file() and path.resolve().is_relative_to(root))
