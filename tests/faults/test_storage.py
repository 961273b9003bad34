"""What lies on the coordinator's disk is damaged, or its database is busy: told, passed over, no bit changed."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import pytest

from tests.faults.conftest import Record
from tests.faults.fault_row import FaultRow
from tests.faults.federation import Federation, small_study, wait_for
from tests.faults.plan import Stop
from tests.faults.strike import Target, bring_back, kill

BUSY_SECONDS = 20.0

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.mark.parametrize("damage", ["a checkpoint's tensors", "a checkpoint's description", "a reply"])
def test_after_a_crash_what_is_damaged_is_passed_over_and_named(
    standing: Federation, record: Record, damage: str
) -> None:
    study = small_study(standing.names)
    reference = standing.reference(study)
    run = standing.start(study)
    run.wait_for_event("round", round=3)
    standing.plan.arm([Stop("executor", "aggregate")])
    standing.plan.wait_stopped()
    struck = time.time()
    kill(standing, Target.ALL, "")
    standing.plan.release()
    pattern = {
        "a checkpoint's tensors": "checkpoints/round-0002/*.safetensors",
        "a checkpoint's description": "checkpoints/round-0002/state.json",
        "a reply": "spool/round-0003/north.safetensors",
    }[damage]
    [victim] = run.folder.root.glob(pattern)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    bring_back(standing, Target.ALL, run)
    run.wait()
    run.assert_whole(reference)
    told = {event["event"]: event for event in run.events() if event["event"].endswith("-damaged")}
    if damage == "a reply":
        assert told["reply-damaged"]["site"] == "north"
        assert "north" in run.said()
    else:
        assert told["checkpoint-damaged"]["checkpoint"] == "round-0002"
        assert "round-0002" in run.said()
    record(
        FaultRow(
            "damage",
            f"one bit of {damage}",
            "named; complete, bit-equal",
            run.seconds_to_progress(struck),
            run.seconds - reference.seconds,
        )
    )


def test_a_busy_database_only_costs_time(standing: Federation, record: Record) -> None:
    """Another process writes into it for 20 s while a hospital uploads."""
    study = small_study(standing.names)
    reference = standing.reference(study)
    run = standing.start(study)
    run.wait_for_event("round", round=2)
    standing.plan.arm([Stop("supernode", "upload", "north")])
    standing.plan.wait_stopped()
    with closing(sqlite3.connect(standing.home.database, isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        struck = time.time()
        standing.plan.release()
        time.sleep(BUSY_SECONDS)
        other.execute("ROLLBACK")
    run.wait()
    run.assert_whole(reference)
    wait_for(lambda: not standing.orphans(), "orphans to end", 20)
    record(
        FaultRow(
            "database",
            f"locked for {BUSY_SECONDS:.0f} s during an upload",
            "complete, bit-equal",
            run.seconds_to_progress(struck),
            run.seconds - reference.seconds,
        )
    )
