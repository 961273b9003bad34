"""One row of a site's manifest: its cells checked, its label known to the study, its image found in the folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from semc.config.site import SiteDataConfig
from semc.datasets.ontology import Ontology
from semc.datasets.sample import SourceRow, Split
from semc.exit_codes import ExitCode, SemcError

_SPLITS: dict[str, Split | None] = {
    "": None,
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}
_SUFFIXES = (".png", ".jpg", ".jpeg")


class ManifestRecord(BaseModel):
    """One validated line of the CSV, still in the site's own names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(min_length=1)
    label: str = Field(min_length=1)
    group: str = ""
    site: str = ""
    split: Split | None = None
    acquisition: str = ""
    device: str = ""
    frame: int = Field(default=0, ge=0)

    @field_validator("file")
    @classmethod
    def _inside(cls, file: str) -> str:
        windows = PureWindowsPath(file)
        if PurePosixPath(file).is_absolute() or windows.is_absolute() or windows.drive:
            raise ValueError("must be relative to the image folder")
        if ".." in windows.parts:
            raise ValueError("must not climb out of the image folder with '..'")
        return file

    @field_validator("split", mode="before")
    @classmethod
    def _known_split(cls, split: str) -> Split | None:
        if split.lower() not in _SPLITS:
            raise ValueError("must be train, val or test, or empty")
        return _SPLITS[split.lower()]

    @field_validator("frame", mode="before")
    @classmethod
    def _no_frame(cls, frame: str) -> str | int:
        return frame or 0


def validated(cells: Mapping[str, str], number: int) -> ManifestRecord:
    """Return a row's cells as a record.

    Raises:
        SemcError: MANIFEST_INVALID with row number and column.
    """
    try:
        return ManifestRecord.model_validate(cells)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        raise _invalid(f"Row {number}, column '{first['loc'][0]}': {message}.", "correct the cell") from error


def source_row(
    record: ManifestRecord, number: int, root: Path, site: SiteDataConfig, ontology: Ontology
) -> SourceRow | None:
    """Label a record and find its image; None where the site ignores the label.

    Args:
        record: One row.
        number: Its number, for messages.
        root: The resolved image folder.
        site: Whether rows without a group are accepted.
        ontology: The study's classes as the site names them.

    Raises:
        SemcError: LABEL_UNKNOWN, SPLIT_LEAK, MANIFEST_INVALID or DATA_UNREADABLE.
    """
    label = ontology.label_of(record.label, number)
    if label is None:
        return None
    if not record.group and not site.allow_ungrouped:
        raise SemcError(
            ExitCode.SPLIT_LEAK,
            f"Row {number} has no group (patient or stream).",
            "fill the column or map it, or accept leakage: data.allow_ungrouped (semc-sim --allow-ungrouped)",
        )
    return SourceRow(
        index=number,
        path=locate(root, record.file, number),
        label=label,
        group=group_of(record.site, record.group),
        split=record.split,
        centre=record.site,
        acquisition=record.acquisition,
        device=record.device,
        frame=record.frame,
    )


def group_of(site: str, group: str) -> str:
    """Return a row's patient key: a number that two wards share is two patients; "" where there is none."""
    return f"{site}/{group}" if site and group else group


def locate(root: Path, file: str, number: int) -> Path:
    """Return the image's path, inside `root` even through symbolic links.

    Args:
        root: The resolved image folder.
        file: Name relative to it, without its ending if it may lack one.
        number: Row number for messages.

    Raises:
        SemcError: MANIFEST_INVALID or DATA_UNREADABLE.
    """
    path = root / PurePosixPath(*PureWindowsPath(file).parts)
    if not path.suffix and not path.exists():
        path = next((path.with_suffix(end) for end in _SUFFIXES if path.with_suffix(end).exists()), path)
    resolved = path.resolve()
    if not resolved.is_relative_to(root):
        raise _invalid(f"Row {number}: the file is a link that leaves the image folder.", "copy the image in")
    if not resolved.is_file():
        raise SemcError(
            ExitCode.DATA_UNREADABLE, f"Row {number}: the image is missing.", "restore it or remove the row"
        )
    return resolved


def _invalid(problem: str, fix: str) -> SemcError:
    return SemcError(ExitCode.MANIFEST_INVALID, problem, fix)
