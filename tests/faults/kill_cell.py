"""One cell of the kill matrix: a study runs, a target is killed in a stage, the study must end whole."""

from __future__ import annotations

import time

from semc.exit_codes import ExitCode
from tests.faults.fault_row import FaultRow
from tests.faults.federation import Federation, small_study, wait_for
from tests.faults.strike import Stage, Target, bring_back, kill, stop_at
from tests.faults.study_run import StudyRun

SITE = "north"
QUICK = (
    (Target.WORKER, Stage.TRAIN),
    (Target.SUPERLINK, Stage.UPLOAD),
    (Target.SERVERAPP, Stage.CHECKPOINT),
)
"""Cells of every `make test`."""


def survive(federation: Federation, target: Target, stage: Stage) -> FaultRow:
    """Run one cell.

    Raises:
        AssertionError: Something was lost, or left behind.
    """
    study = small_study(federation.names)
    reference = federation.reference(study)
    if stage is Stage.IDLE:
        struck = time.time()
        kill(federation, target, SITE)
        bring_back(federation, target, None)
        run = _started_once_it_serves(federation)
    else:
        run = federation.start(study)
        run.wait_for_event("round", round=2)
        federation.plan.arm([stop_at(stage, target, SITE)])
        federation.plan.wait_stopped()
        struck = time.time()
        kill(federation, target, SITE)
        federation.plan.release()
        bring_back(federation, target, run)
    run.wait()
    run.assert_whole(reference)
    wait_for(lambda: not federation.orphans(), f"orphans to end: {federation.orphans()}", 20)
    site = SITE if target in (Target.CLIENT, Target.WORKER) else ""
    return FaultRow(
        "kill -9",
        f"{target}, {stage}",
        "complete, bit-equal",
        run.seconds_to_progress(struck, site),
        run.seconds - reference.seconds,
    )


def _started_once_it_serves(federation: Federation) -> StudyRun:
    """Start the study; where its user is told that the coordinator is away, again once it is back."""
    run = federation.start(small_study(federation.names))
    try:
        run.wait_for_event("submitted")
    except AssertionError:
        assert run.wait() == ExitCode.SERVER_UNREACHABLE, run.said()
        assert "Fix: " in run.said()
        wait_for(federation.serves, "the coordinator to serve again", 60)
        run = federation.start(small_study(federation.names))
    return run
