"""A site's CSV to rows: `file, label, group` and optional columns, whatever the site calls them.

Rows are named by their number as a spreadsheet shows it (the header is row 1); no message holds a cell.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from semc.config.site import SiteDataConfig
from semc.datasets.ontology import Ontology
from semc.datasets.sample import SourceRow, Split
from semc.exit_codes import ExitCode, SemcError

COLUMNS = ("file", "label", "group", "site", "split", "acquisition", "device", "frame")
"""Columns this software reads; a manifest may hold others."""
DUPLICATE_COLUMN = "exact_dup_of"
"""Rows with a value here repeat another image and are left out."""
_SPLITS: dict[str, Split | None] = {
    "": None,
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}
_SUFFIXES = (".png", ".jpg", ".jpeg")
MANY_FRAMES = (
    *(".nii", ".nii.gz", ".mhd", ".mha", ".dcm", ".dicom"),
    *(".gif", ".mp4", ".avi", ".mov", ".mpeg", ".mpg"),
)
"""Endings of files that may hold several rows' frames; a site itself reads none of them but a GIF of one frame."""


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


def read_manifest(site: SiteDataConfig, ontology: Ontology) -> list[SourceRow]:
    """Read, validate and label a site's manifest.

    Args:
        site: Root folder, manifest name, column map and label rules.
        ontology: The study's classes as the site names them.

    Returns:
        Rows in file order, without ignored labels and marked repeats.

    Raises:
        SemcError: DATA_NOT_FOUND, MANIFEST_INVALID, LABEL_UNKNOWN, DATA_UNREADABLE (an image is missing) or
            SPLIT_LEAK (a row without a group that the site does not accept).
    """
    if not site.root.is_dir():
        raise SemcError(ExitCode.DATA_NOT_FOUND, "The image folder does not exist.", "correct data.root")
    return rows_of_table(read_table(site.root / site.manifest), site, ontology)


def rows_of_table(table: pd.DataFrame, site: SiteDataConfig, ontology: Ontology) -> list[SourceRow]:
    """Validate and label a table of :func:`read_table`; errors as in :func:`read_manifest`."""
    table = rename_columns(table, site.column_map)
    root = site.root.resolve()
    rows: list[SourceRow] = []
    seen: dict[str, int] = {}
    columns = [name for name in COLUMNS if name in table]
    repeats = table[DUPLICATE_COLUMN].tolist() if DUPLICATE_COLUMN in table else [""] * len(table)
    numbers = [int(number) for number in table.index]
    for number, repeat, cells in zip(numbers, repeats, table[columns].to_dict("records"), strict=True):
        if repeat:
            continue
        record = _validated({str(name): cell for name, cell in cells.items()}, number)
        picture = record.file
        if picture.lower().endswith(MANY_FRAMES):
            picture = f"{picture} frame {record.frame}"
        if picture in seen:
            raise _invalid(f"Rows {seen[picture]} and {number} name the same file.", "list each image once")
        seen[picture] = number
        label = ontology.label_of(record.label, number)
        if label is None:
            continue
        if not record.group and not site.allow_ungrouped:
            raise SemcError(
                ExitCode.SPLIT_LEAK,
                f"Row {number} has no group (patient or stream).",
                "fill the column or map it, or accept leakage: data.allow_ungrouped (semc-sim --allow-ungrouped)",
            )
        rows.append(
            SourceRow(
                index=number,
                path=locate(root, record.file, number),
                label=label,
                group=f"{record.site}/{record.group}" if record.site and record.group else record.group,
                split=record.split,
                centre=record.site,
                acquisition=record.acquisition,
                device=record.device,
                frame=record.frame,
            )
        )
    return rows


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV (`,` or `;`, UTF-8) as trimmed strings, indexed by spreadsheet row number.

    Raises:
        SemcError: DATA_NOT_FOUND or MANIFEST_INVALID.
    """
    try:
        with path.open(encoding="utf-8-sig") as stream:
            header = stream.readline()
        separator = ";" if header.count(";") > header.count(",") else ","
        cells = pd.read_csv(
            path,
            sep=separator,
            header=None,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            encoding="utf-8-sig",
        ).fillna("")
    except FileNotFoundError as error:
        raise SemcError(
            ExitCode.DATA_NOT_FOUND, "The manifest CSV does not exist.", "correct data.root and data.manifest"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid("The manifest cannot be read as UTF-8 text.", "save it as CSV UTF-8") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        line = re.search(r"line (\d+)", str(error))
        where = f"Row {line.group(1)} of the manifest" if line else "The manifest"
        raise _invalid(
            f"{where} is not a row of the table.", "give every row the header's columns"
        ) from error
    cells = cells.apply(lambda column: column.str.strip())
    names = cells.iloc[0].tolist()
    if len(set(names)) != len(names) or "" in names:
        raise _invalid("The manifest's header has empty or repeated names.", "name every column once")
    table = cells.iloc[1:].set_axis(names, axis=1)
    table.index = pd.RangeIndex(2, len(cells) + 1)
    filled: pd.DataFrame = table[(table != "").any(axis=1)]
    return filled


def rename_columns(table: pd.DataFrame, column_map: dict[str, str]) -> pd.DataFrame:
    """Return the table under our column names.

    Args:
        table: The site's table.
        column_map: Our name to the site's.

    Raises:
        SemcError: MANIFEST_INVALID where the map or a required column does not fit.
    """
    strangers = sorted(set(column_map) - set(COLUMNS) - {DUPLICATE_COLUMN})
    if strangers:
        raise _invalid(f"data.column_map names '{strangers[0]}'.", f"map only: {', '.join(COLUMNS)}")
    for ours, theirs in column_map.items():
        if theirs not in table:
            raise _invalid(f"The manifest has no column '{theirs}' for '{ours}'.", "correct data.column_map")
    kept = [name for name in table if name not in column_map or column_map[str(name)] == name]
    renamed = table[kept].assign(**{ours: table[theirs] for ours, theirs in column_map.items()})
    for required in ("file", "label"):
        if required not in renamed:
            raise _invalid(f"The manifest has no column '{required}'.", "add it or use data.column_map")
    return renamed


def _validated(cells: dict[str, Any], number: int) -> ManifestRecord:
    try:
        return ManifestRecord.model_validate(cells)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        raise _invalid(f"Row {number}, column '{first['loc'][0]}': {message}.", "correct the cell") from error


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
