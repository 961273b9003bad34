"""All checks of a site in their order, as a table for people or JSON for scripts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client.doctor.data import data_rows
from client.doctor.machine import machine_rows
from client.doctor.network import network_rows
from client.doctor.privacy import privacy_rows
from client.doctor.row import Row, passed, wrong
from semc.config import load_site
from semc.exit_codes import ExitCode, SemcError

_COLOURS: Final = {"passed": "green", "warning": "yellow", "wrong": "red", "skipped": "dim"}


@dataclass(frozen=True)
class Report:
    """What the checks found."""

    rows: tuple[Row, ...]

    def exit_code(self) -> ExitCode:
        """Return OK, the code of the only error, or CHECK_FAILED where there are several."""
        codes = [row.code for row in self.rows if row.state == "wrong"]
        if not codes:
            return ExitCode.OK
        return codes[0] if len(codes) == 1 else ExitCode.CHECK_FAILED

    def to_json(self) -> str:
        """Return the report as one JSON object."""
        code = self.exit_code()
        rows = [
            {"check": row.name, "state": row.state, "found": row.found, "fix": row.fix, "code": row.code.name}
            for row in self.rows
        ]
        return json.dumps({"exit_code": int(code), "exit_name": code.name, "rows": rows}, indent=2)

    def print_table(self) -> None:
        """Print the report as a table."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table("check", "", box=None, pad_edge=False)
        table.add_column("found", overflow="fold")
        table.add_column("fix", overflow="fold")
        for row in self.rows:
            state = Text(row.state, style=_COLOURS[row.state])
            table.add_row(Text(row.name), state, Text(row.found), Text(row.fix))
        Console().print(table)


def examine(site_file: Path, study: str | None = None, *, every_image: bool = False) -> Report:
    """Run every check; none changes anything at the site.

    Args:
        site_file: The hospital's YAML.
        study: Study to check the data against; None: what the site file says of its classes.
        every_image: Decode every image, not a sample of each split.

    Returns:
        One row per check; where the site file itself is wrong, that row only.
    """
    try:
        site = load_site(site_file)
    except SemcError as error:
        return Report((wrong("site file", error),))
    return Report(
        (
            passed("site file", f"site '{site.site}'"),
            *machine_rows(site),
            *privacy_rows(site, study),
            *data_rows(site, study, every_image=every_image),
            *network_rows(site),
        )
    )
