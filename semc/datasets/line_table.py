"""A site's CSV line by line, where no line may change how another is read.

A parser of whole files carries state from row to row: one quote that is never closed swallows the rows of everybody
below it, one byte that is no UTF-8 ends the reading. Here every line stands for itself and one that is no row
of the table is left out alone. A cell with a line break in it is therefore no row either.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from semc.datasets.manifest import checked_names, separator_of
from semc.exit_codes import ExitCode, SemcError


@dataclass(frozen=True)
class LineTable:
    """What :func:`read_lines` found."""

    table: pd.DataFrame
    """Trimmed strings, indexed by line number (the header is line 1), without empty lines."""
    unread: tuple[int, ...]
    """Numbers of the lines that are no rows of the table."""


def read_lines(path: Path) -> LineTable:
    """Read a CSV (`,` or `;`, UTF-8), each line by itself.

    Bytes that are no UTF-8 are kept as escapes, so that two keys which differ in them stay two.

    Raises:
        SemcError: DATA_NOT_FOUND where there is no file; MANIFEST_INVALID where it cannot be opened or its header
            is none. Nothing below the header raises.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="backslashreplace") as stream:
            lines = [line.rstrip("\n") for line in stream]
    except FileNotFoundError as error:
        raise SemcError(
            ExitCode.DATA_NOT_FOUND, "The manifest CSV does not exist.", "correct data.root and data.manifest"
        ) from error
    except OSError as error:
        raise SemcError(
            ExitCode.MANIFEST_INVALID, "The manifest cannot be read.", "let this user read the file"
        ) from error
    header = lines[0] if lines else ""
    separator = separator_of(header)
    names = checked_names(_cells(header, separator) or [""])
    rows: dict[int, list[str]] = {}
    unread = []
    for number, line in enumerate(lines[1:], start=2):
        cells = _cells(line, separator)
        if cells is None or len(cells) > len(names):
            unread.append(number)
        elif any(cells):
            rows[number] = cells + [""] * (len(names) - len(cells))
    table = pd.DataFrame(list(rows.values()), index=list(rows), columns=names, dtype=str)
    return LineTable(table, tuple(unread))


def _cells(line: str, separator: str) -> list[str] | None:
    """Return a line's trimmed cells, none of an empty line; None where its quotes do not close."""
    try:
        return [cell.strip() for row in csv.reader([line], delimiter=separator, strict=True) for cell in row]
    except csv.Error:
        return None
