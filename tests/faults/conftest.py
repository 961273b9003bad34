"""A standing federation for the faults, and a report of all of them where FAULTS names a folder.

A row travels as a user property of its test, so it also arrives from pytest-xdist's workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.bad_link import BadLink
from tests.faults.cut import dial
from tests.faults.fault_report import print_report, write_report
from tests.faults.fault_row import FaultRow
from tests.faults.federation import Federation, running_federation

_ROW = "fault-row"
_SCHEDULE = "fault-schedule"
_FOLDER = "FAULTS"

_rows: list[dict[str, Any]] = []
_schedules: list[dict[str, Any]] = []
_failed: list[str] = []

Record = Callable[[FaultRow], None]


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Two hospitals that write a mid-round checkpoint at every step."""
    folder = tmp_path_factory.mktemp("federation")
    with running_federation(folder, ("north", "south"), checkpoint_seconds=0) as running:
        yield running


@pytest.fixture
def standing(federation: Federation, request: pytest.FixtureRequest) -> Iterator[Federation]:
    """The same federation for one test; after a test that failed everything is started anew."""
    federation.start_what_ended()
    before = request.session.testsfailed
    yield federation
    federation.plan.release()
    if request.session.testsfailed > before:
        federation.kill_everything()


@pytest.fixture(scope="module")
def over_link(federation: Federation) -> Iterator[BadLink]:
    """The link between the first hospital and the coordinator."""
    with BadLink(federation.rehearsal.address) as link:
        dial(federation, link.address)
        yield link
        dial(federation, federation.rehearsal.address)


@pytest.fixture
def link(over_link: BadLink) -> Iterator[BadLink]:
    """The same link for one test, good at its beginning and its end."""
    yield over_link
    over_link.heal()


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Return what a test hands its row to."""
    return lambda row: request.node.user_properties.append((_ROW, row.plain()))


@pytest.fixture
def record_schedule(request: pytest.FixtureRequest) -> Callable[[dict[str, Any]], None]:
    """Return what a random schedule's outcome is handed to."""
    return lambda outcome: request.node.user_properties.append((_SCHEDULE, outcome))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the rows of tests that passed and the names of the others."""
    if report.failed:
        _failed.append(report.nodeid)
    if report.when != "call":
        return
    for name, value in report.user_properties:
        if name == _SCHEDULE and isinstance(value, dict):
            _schedules.append(value)
        if name == _ROW and isinstance(value, dict) and report.passed:
            _rows.append(value)


def pytest_terminal_summary() -> None:
    """Print and write the report."""
    folder = os.environ.get(_FOLDER)
    if folder is None or not (_rows or _schedules or _failed):
        return
    print_report(_rows, _schedules)
    write_report(Path(folder), _rows, _schedules, _failed)
