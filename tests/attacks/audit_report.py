"""What `make privacy-audit` prints and writes: one table of all attacks, and the proofs that ran beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

CAVEAT = (
    "An audit falsifies, it never certifies: an attack that fails here proves that this attack failed. "
    "The guarantee rests on the mechanism and its accounting; their tests are among the files listed."
)
_WIDTH = 150
_HEADINGS = ("attack", "setting", "figure", "must be", "where the protection is off", "verdict")


def cells_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a row's cells: the figure, its threshold, each control with the least it must reach, the verdict."""
    controls = "; ".join(
        f"{control['name']} {control['value']:.3g} (≥ {control['at_least']:.3g})"
        for control in row["controls"]
    )
    verdict = "held" if row["held"] else "FAILED"
    figure, limit = f"{row['value']:.3g}", f"≤ {row['at_most']:.5g}"
    return (row["attack"], row["setting"], figure, limit, controls or "–", verdict)


def chosen_rows(rows: Sequence[tuple[Mapping[str, Any], bool]]) -> list[Mapping[str, Any]]:
    """Return what is reported: where an attack ran at its full size, its quick version is left out.

    A quick row whose controls no full row of the attack has stays.

    Args:
        rows: Each with whether its test belongs to the full audit.
    """
    full = {(row["attack"], bool(row["controls"])) for row, is_full in rows if is_full}
    kept = [row for row, is_full in rows if is_full or (row["attack"], bool(row["controls"])) not in full]
    return sorted(kept, key=lambda row: (row["attack"], row["setting"]))


def print_report(rows: Sequence[Mapping[str, Any]], proofs: Mapping[str, tuple[int, int]]) -> None:
    """Print the table of attacks and the table of test files.

    Args:
        rows: Each a :meth:`tests.attacks.audit_row.AuditRow.plain`.
        proofs: (passed, failed) tests of every file that ran.
    """
    table = Table(title="Privacy audit", title_justify="left")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right" if heading in ("figure", "must be") else "left")
    for row in rows:
        table.add_row(*cells_of(row), style=None if row["held"] else "bold red")
    files = Table(title="Proofs and attacks by file", title_justify="left")
    for heading in ("file", "passed", "failed"):
        files.add_column(heading, justify="left" if heading == "file" else "right")
    for name, (passed, failed) in sorted(proofs.items()):
        files.add_row(name, str(passed), str(failed), style="bold red" if failed else None)
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    for part in (table, files, CAVEAT):
        console.print(part)


def write_report(
    folder: Path, rows: Sequence[Mapping[str, Any]], proofs: Mapping[str, tuple[int, int]], seconds: float
) -> None:
    """Write audit.json and audit.md into a folder that is made if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "caveat": CAVEAT,
        "seconds": round(seconds, 1),
        "attacks": list(rows),
        "files": {name: {"passed": p, "failed": f} for name, (p, f) in sorted(proofs.items())},
    }
    (folder / "audit.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    lines = ["# Privacy audit", "", CAVEAT, "", *_markdown(_HEADINGS, [cells_of(row) for row in rows]), ""]
    files = [(name, str(passed), str(failed)) for name, (passed, failed) in sorted(proofs.items())]
    lines += [*_markdown(("file", "passed", "failed"), files), "", f"{seconds / 60:.1f} minutes."]
    (folder / "audit.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
