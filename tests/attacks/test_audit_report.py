"""The report tells a figure that fell and a control that found nothing, and keeps the full-size figure of an attack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.attacks.audit_report import CAVEAT, cells_of, chosen_rows, write_report
from tests.attacks.audit_row import AuditRow, Control

GOOD = AuditRow("attack", "setting", 0.5, 0.55, (Control("broken | twin", 0.9, 0.7),))
LEAKS = AuditRow("attack", "setting", 0.6, 0.55, (Control("broken twin", 0.9, 0.7),))
BLIND = AuditRow("attack", "setting", 0.5, 0.55, (Control("broken twin", 0.6, 0.7),))


@pytest.mark.parametrize(("row", "held"), [(GOOD, True), (LEAKS, False), (BLIND, False)])
def test_a_row_holds_only_with_its_control(row: AuditRow, held: bool) -> None:
    assert row.held is held
    assert cells_of(row.plain())[-1] == ("held" if held else "FAILED")


def test_the_files_hold_every_figure_and_the_caveat(tmp_path: Path) -> None:
    rows = [GOOD.plain(), LEAKS.plain()]
    write_report(tmp_path / "new", rows, {"tests/a.py": (3, 1)}, 90.0)
    content = json.loads((tmp_path / "new" / "audit.json").read_text(encoding="utf-8"))
    assert [row["held"] for row in content["attacks"]] == [True, False]
    assert content["files"] == {"tests/a.py": {"passed": 3, "failed": 1}}
    page = (tmp_path / "new" / "audit.md").read_text(encoding="utf-8")
    assert CAVEAT in page
    assert "FAILED" in page
    assert "broken \\| twin 0.9 (≥ 0.7)" in page, "a bar in a name would end the table's cell"
    assert "1.5 minutes" in page


def test_a_quick_figure_gives_way_to_the_full_one() -> None:
    quick, full, alone = (AuditRow(name, size, 0.0, 1.0, ()).plain() for name, size in ("ab", "ac", "db"))
    controlled = GOOD.plain() | {"attack": "a"}
    rows = [(quick, False), (full, True), (alone, False), (controlled, False)]
    assert chosen_rows(rows) == [full, controlled, alone]
