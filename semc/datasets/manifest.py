"""A site's CSV to rows: `file, label, group` and optional columns, whatever the site calls them.

Rows are named by their number as a spreadsheet shows it (the header is row 1); no message holds a cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from semc.config.site import SiteDataConfig
from semc.datasets.manifest_row import source_row, validated
from semc.datasets.ontology import Ontology
from semc.datasets.sample import SourceRow
from semc.exit_codes import ExitCode, SemcError

COLUMNS = ("file", "label", "group", "site", "split", "acquisition", "device", "frame")
"""Columns this software reads; a manifest may hold others."""
DUPLICATE_COLUMN = "exact_dup_of"
"""Rows with a value here repeat another image and are left out."""
MANY_FRAMES = (
    *(".nii", ".nii.gz", ".mhd", ".mha", ".dcm", ".dicom"),
    *(".gif", ".mp4", ".avi", ".mov", ".mpeg", ".mpg"),
)
"""Endings of files that may hold several rows' frames; a site itself reads none of them but a GIF of one frame."""


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
    for number, cells in listed_cells(table):
        record = validated(cells, number)
        picture = record.file
        if picture.lower().endswith(MANY_FRAMES):
            picture = f"{picture} frame {record.frame}"
        if picture in seen:
            raise _invalid(f"Rows {seen[picture]} and {number} name the same file.", "list each image once")
        seen[picture] = number
        row = source_row(record, number, root, site, ontology)
        if row is not None:
            rows.append(row)
    return rows


def listed_cells(table: pd.DataFrame) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row's number and the cells this software reads, without the rows marked as repeats.

    Args:
        table: Under our column names, as :func:`rename_columns` returns it.
    """
    columns = [name for name in COLUMNS if name in table]
    repeats = table[DUPLICATE_COLUMN].tolist() if DUPLICATE_COLUMN in table else [""] * len(table)
    numbers = [int(number) for number in table.index]
    for number, repeat, cells in zip(numbers, repeats, table[columns].to_dict("records"), strict=True):
        if not repeat:
            yield number, {str(name): cell for name, cell in cells.items()}


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV (`,` or `;`, UTF-8) as trimmed strings, indexed by spreadsheet row number.

    Raises:
        SemcError: DATA_NOT_FOUND or MANIFEST_INVALID.
    """
    try:
        with path.open(encoding="utf-8-sig") as stream:
            header = stream.readline()
        separator = separator_of(header)
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
    names = checked_names(cells.iloc[0].tolist())
    table = cells.iloc[1:].set_axis(names, axis=1)
    table.index = pd.RangeIndex(2, len(cells) + 1)
    filled: pd.DataFrame = table[(table != "").any(axis=1)]
    return filled


def separator_of(header: str) -> str:
    """Return the character between a table's cells, judged by its first line."""
    return ";" if header.count(";") > header.count(",") else ","


def checked_names(names: list[str]) -> list[str]:
    """Return a header's names.

    Raises:
        SemcError: MANIFEST_INVALID where one is empty or stands twice.
    """
    if len(set(names)) != len(names) or "" in names:
        raise _invalid("The manifest's header has empty or repeated names.", "name every column once")
    return names


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


def _invalid(problem: str, fix: str) -> SemcError:
    return SemcError(ExitCode.MANIFEST_INVALID, problem, fix)
