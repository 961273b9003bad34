"""The lung ultrasound collection as its curators keep it: dataset_metadata.csv beside pocus_images and pocus_videos.

A clip gives up to six evenly spaced frames. The patient column is unreliable, so a clip without a number belongs to one
group with all others of its source, and a number counts within its source only; one clip under two numbers stays
unseen here (`semc-sim inspect` reports what looks alike).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import cv2
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from semc.datasets.cohort_table import CentreRule, CohortOptions, CohortReader, CohortTable, table_from
from semc.datasets.csv_manifest import has_columns
from semc.exit_codes import ExitCode, SemcError

TABLE = "dataset_metadata.csv"
FRAMES_PER_CLIP = 6
_FOLDERS = (".", "data")
_MARKS = frozenset({"Current location", "Filename", "Label", "Source ID"})
_HELD = ("pocus_images", "pocus_videos")


class Clip(BaseModel):
    """One line of the table; the other columns are not read."""

    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=True)

    location: str = Field(alias="Current location")
    name: str = Field(alias="Filename", min_length=1)
    label: str = Field(alias="Label", min_length=1)
    source: str = Field(alias="Source ID")
    probe: str = Field(default="", alias="Probe")
    licence: str = Field(default="", alias="License")
    patient: str = Field(default="", alias="Patient ID / Name")


def is_pocus_repository(root: Path) -> bool:
    """Tell whether a folder is the repository or its data folder."""
    return any(has_columns(root / folder, _MARKS, (TABLE,)) for folder in _FOLDERS)


def read_pocus_repository(root: Path, options: CohortOptions) -> CohortTable:
    """List the frames of the clips and images that the folder holds; others in the table are counted in a note.

    Raises:
        SemcError: DATA_NOT_FOUND or MANIFEST_INVALID.
    """
    del options
    base = next(root / folder for folder in _FOLDERS if has_columns(root / folder, _MARKS, (TABLE,)))
    held = {path.relative_to(base).as_posix().lower(): path for path in _files(base)}
    records: list[dict[str, object]] = []
    absent = 0
    for clip in _clips(base / TABLE):
        place = clip.location.lower().removeprefix("data/").strip("/")
        name = f"{place}/{clip.name.lower()}"
        path = held.get(name) or next(
            (path for key, path in sorted(held.items()) if key.rpartition(".")[0] == name), None
        )
        if path is None:
            absent += 1
            continue
        records += _frames(clip, path, base)
    return CohortTable(
        cohort="pocus_repository",
        root=base,
        images=table_from(records),
        centres=(
            CentreRule(("source_id",), "acquisition", pool_small=True),
            CentreRule(("probe",), "device"),
        ),
        licence="per item: column license",
        notes=(
            "the class nearly follows from the source: no accuracy across sources can be claimed",
            "patient numbers are unreliable upstream: look at the pictures that inspect reports as alike",
            f"{absent} clips of the table are not in the folder",
        ),
    )


def _frames(clip: Clip, path: Path, base: Path) -> list[dict[str, object]]:
    shared: dict[str, object] = {
        "file": path.relative_to(base).as_posix(),
        "label": clip.label,
        "group": f"{clip.source}/{clip.patient}",
        "acquisition": path.name,
        "device": clip.probe,
        "source_id": clip.source,
        "probe": clip.probe,
        "license": clip.licence,
    }
    return [{**shared, "frame": frame} for frame in _spaced(num_frames(path))]


def num_frames(path: Path) -> int:
    """Return how many frames a picture file holds, by its header."""
    try:
        with Image.open(path) as image:
            return int(getattr(image, "n_frames", 1))
    except UnidentifiedImageError:
        capture = cv2.VideoCapture(str(path))
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        return max(count, 1)


def _spaced(count: int) -> list[int]:
    """Return up to FRAMES_PER_CLIP evenly spaced frames of `count`, first included, last left out."""
    chosen = min(count, FRAMES_PER_CLIP)
    return [place * count // chosen for place in range(chosen)]


def _clips(path: Path) -> Iterator[Clip]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        for number, cells in enumerate(csv.DictReader(stream), start=2):
            if not any(cells.get(name) for name in _MARKS):
                continue
            try:
                yield Clip.model_validate(cells)
            except ValidationError as error:
                raise SemcError(
                    ExitCode.MANIFEST_INVALID,
                    f"Row {number} of {TABLE} lacks a file name, label, source or location.",
                    "restore it from the repository",
                ) from error


def _files(base: Path) -> Iterator[Path]:
    for name in _HELD:
        yield from sorted(path for path in (base / name).rglob("*") if path.is_file())


POCUS_REPOSITORY = CohortReader("pocus_repository", is_pocus_repository, read_pocus_repository)
