"""The report tells every fault with its times, and a schedule that failed by its seed."""

from __future__ import annotations

import json
from pathlib import Path

from tests.faults.fault_report import cells_of, summaries_of, write_report
from tests.faults.fault_row import FaultRow

ROW = FaultRow("kill -9", "worker, train", "complete, bit-equal", 61.25, 70.0, {"epsilon": 1.5}).plain()
GOOD = {"kind": "programs", "seed": 0, "strikes": 3, "hits": 2, "problem": ""}
BAD = {"kind": "programs", "seed": 7, "strikes": 1, "hits": 1, "problem": "another sum"}


def test_a_row_tells_times_and_figures_and_says_where_there_are_none() -> None:
    assert cells_of(ROW)[3:] == ("61.2 s", "70.0 s", "epsilon 1.5")
    assert cells_of(FaultRow("disk full", "site", "exit 50").plain())[3:] == ("–", "–", "–")


def test_a_failed_seed_is_named() -> None:
    [good], [both] = summaries_of([GOOD]), summaries_of([GOOD, BAD])
    assert good.endswith("1 whole and bit-equal, 0 not")
    assert both.endswith("1 whole and bit-equal, 1 not (seeds 7)")
    assert both.startswith("programs: 2 random schedules, 4 faults of which 3 during a study")
    assert len(summaries_of([GOOD, {**BAD, "kind": "forked processes"}])) == 2


def test_the_files_hold_everything(tmp_path: Path) -> None:
    write_report(tmp_path / "new", [ROW], [GOOD, BAD], ["tests/faults/test_schedules.py::x"])
    assert json.loads((tmp_path / "new" / "faults.json").read_text(encoding="utf-8"))["faults"] == [ROW]
    page = (tmp_path / "new" / "faults.md").read_text(encoding="utf-8")
    assert "| kill -9 | worker, train | complete, bit-equal | 61.2 s | 70.0 s | epsilon 1.5 |" in page
    assert "Failed: tests/faults/test_schedules.py::x." in page
    told = json.loads((tmp_path / "new" / "schedules.json").read_text(encoding="utf-8"))
    assert [item["seed"] for item in told["schedules"]] == [0, 7]
    write_report(tmp_path / "good", [ROW], [], [])
    assert "Every fault was survived." in (tmp_path / "good" / "faults.md").read_text(encoding="utf-8")
    assert not (tmp_path / "good" / "schedules.json").exists()
