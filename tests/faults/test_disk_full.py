"""A disk is full in the middle of a study: a listed exit code with its fix, and after the fix the same bits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from semc.exit_codes import ExitCode
from tests.faults.conftest import Record
from tests.faults.fault_row import FaultRow
from tests.faults.federation import Federation, make_hospitals, small_study, wait_for
from tests.faults.plan import Stop
from tests.faults.small_disk import SmallDisk, can_mount

SITE = "north"

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not can_mount(), reason="only root may mount a small disk"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Federation, dict[str, SmallDisk]]]:
    """A federation whose coordinator and first hospital have disks of their own."""
    folder: Path = tmp_path_factory.mktemp("small-disks")
    files = make_hospitals(folder / "hospitals", (SITE, "south"), checkpoint_seconds=0)
    disks = {
        "coordinator": SmallDisk(folder / "coordinator", 200),
        SITE: SmallDisk(folder / "hospitals" / SITE / "state", 60),
    }
    with ExitStack() as stack:
        for disk in disks.values():
            stack.enter_context(disk)
        yield stack.enter_context(Federation(folder, files)), disks


@pytest.mark.parametrize(
    ("full", "stop", "code"),
    [
        (SITE, Stop("worker", "train", SITE, call=4), ExitCode.QUORUM_LOST),
        ("coordinator", Stop("executor", "spool"), ExitCode.DISK),
        ("coordinator", Stop("executor", "checkpoint"), ExitCode.DISK),
    ],
    ids=["site-train", "coordinator-spool", "coordinator-checkpoint"],
)
def test_a_full_disk_stops_the_study_and_room_lets_it_go_on(
    place: tuple[Federation, dict[str, SmallDisk]],
    record: Record,
    full: str,
    stop: Stop,
    code: ExitCode,
) -> None:
    federation, disks = place
    federation.start_what_ended()
    study = small_study(federation.names)
    reference = federation.reference(study)
    run = federation.start(study)
    run.wait_for_event("round", round=2)
    federation.plan.arm([stop])
    federation.plan.wait_stopped()
    disks[full].fill()
    struck = time.time()
    federation.plan.release()
    try:
        told = run.wait()
    finally:
        disks[full].free()
    assert told == code, run.said()
    assert "Fix: " in run.said()
    waited = time.time() - struck
    federation.start_what_ended()
    run.resume()
    run.wait()
    run.assert_whole(reference)
    wait_for(lambda: not federation.orphans(), "orphans to end", 20)
    ended = f"exit {int(code)}, then resumed: complete, bit-equal"
    record(FaultRow("disk full", f"{full}, {stop.stage}", ended, figures={"seconds until told": waited}))
