"""Collects every attack's figure and reports them at the end, where PRIVACY_AUDIT names a folder.

A figure travels as a user property of its test, so it also arrives from pytest-xdist's workers.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.audit_report import chosen_rows, print_report, write_report
from tests.attacks.audit_row import AuditRow

_ROW = "privacy-audit-row"
_FOLDER = "PRIVACY_AUDIT"

_rows: list[tuple[dict[str, Any], bool]] = []
_outcomes: Counter[tuple[str, bool]] = Counter()
_started = time.monotonic()


@pytest.fixture
def audit(request: pytest.FixtureRequest) -> Callable[[AuditRow], None]:
    """Return what a test hands its figure to: it is kept for the report, then must have held."""

    def _record(row: AuditRow) -> None:
        request.node.user_properties.append((_ROW, row.plain()))
        assert row.value <= row.at_most, f"{row.attack} reached {row.value:.4g}, above {row.at_most:.4g}"
        for control in row.controls:
            assert control.bites, f"the control '{control.name}' reached only {control.value:.4g}"

    return _record


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the figures and the outcome of a finished test."""
    file = report.nodeid.partition("::")[0]
    if report.failed:
        _outcomes[file, True] += 1
    elif report.when == "call" and report.passed:
        _outcomes[file, False] += 1
    if report.when == "call":
        full = "audit" in report.keywords
        _rows.extend((value, full) for name, value in report.user_properties if name == _ROW)


def pytest_terminal_summary() -> None:
    """Print and write the report."""
    folder = os.environ.get(_FOLDER)
    if folder is None or not _outcomes:
        return
    rows = chosen_rows(_rows)
    proofs = {name: (_outcomes[name, False], _outcomes[name, True]) for name, _ in _outcomes}
    print_report(rows, proofs)
    write_report(Path(folder), rows, proofs, time.monotonic() - _started)
