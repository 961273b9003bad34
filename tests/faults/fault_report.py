"""What `make faults` prints and writes: one table of all faults that were tried, with what they cost in time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_WIDTH = 130
_HEADINGS = ("fault", "cell", "study", "recovered after", "delay", "figures")


def cells_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a row's cells; times in seconds."""
    figures = "; ".join(f"{name} {value:.4g}" for name, value in row["figures"].items())
    times = (_seconds(row[name]) for name in ("recovery_seconds", "delay_seconds"))
    return (row["fault"], row["cell"], row["ended"], *times, figures or "–")


def summaries_of(schedules: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one line about all random schedules of each kind."""
    kinds = sorted({item["kind"] for item in schedules})
    return [_summary_of(kind, [item for item in schedules if item["kind"] == kind]) for kind in kinds]


def _summary_of(kind: str, schedules: Sequence[Mapping[str, Any]]) -> str:
    failed = [str(item["seed"]) for item in schedules if item["problem"]]
    strikes, hits = (sum(item[name] for item in schedules) for name in ("strikes", "hits"))
    return (
        f"{kind}: {len(schedules)} random schedules, {strikes} faults of which {hits} during a study: "
        f"{len(schedules) - len(failed)} whole and bit-equal, {len(failed)} not"
        + (f" (seeds {', '.join(failed)})" if failed else "")
    )


def print_report(rows: Sequence[Mapping[str, Any]], schedules: Sequence[Mapping[str, Any]]) -> None:
    """Print the table, and one line about each kind of random schedules."""
    table = Table(title="Faults", title_justify="left")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right" if heading in ("recovered after", "delay") else "left")
    for row in rows:
        table.add_row(*cells_of(row))
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(table)
    for summary in summaries_of(schedules):
        console.print(summary)


def write_report(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    schedules: Sequence[Mapping[str, Any]],
    failed: Sequence[str],
) -> None:
    """Write faults.json, faults.md and schedules.json into a folder that is made if missing.

    Args:
        folder: The folder.
        rows: Each a :meth:`tests.faults.fault_row.FaultRow.plain`.
        schedules: What became of each seed.
        failed: Tests whose fault was not survived.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = {"faults": list(rows), "failed": sorted(failed)}
    (folder / "faults.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    lines = [_HEADINGS, ["---"] * len(_HEADINGS), *(cells_of(row) for row in rows)]
    text = ["# Faults", "", *("| " + " | ".join(line) + " |" for line in lines), ""]
    for summary in summaries_of(schedules):
        text += [f"{summary}.", ""]
    text += [f"Failed: {', '.join(sorted(failed))}." if failed else "Every fault was survived.", ""]
    (folder / "faults.md").write_text("\n".join(text), encoding="utf-8")
    if schedules:
        told = {"summary": summaries_of(schedules), "schedules": list(schedules)}
        (folder / "schedules.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"
