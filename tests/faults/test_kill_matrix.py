"""Every process is killed in every stage: the study still ends whole, with the bits of the uninterrupted one."""

from __future__ import annotations

import time

import pytest

from semc.exit_codes import ExitCode
from tests.faults.conftest import Record
from tests.faults.fault_row import FaultRow
from tests.faults.federation import Federation, small_study, wait_for
from tests.faults.strike import Stage, Target, bring_back, kill, stop_at

SITE = "north"
QUICK = {
    (Target.WORKER, Stage.TRAIN),
    (Target.SUPERLINK, Stage.UPLOAD),
    (Target.SERVERAPP, Stage.SPOOL),
    (Target.SERVERAPP, Stage.CHECKPOINT),
}


def cells() -> list[object]:
    """Return all pairs; those that are not quick are marked, and the cells of one target run in one process."""
    return [
        pytest.param(
            target,
            stage,
            marks=[pytest.mark.xdist_group("faults")]
            if (target, stage) in QUICK
            else [pytest.mark.faults, pytest.mark.xdist_group(f"faults-{target}")],
            id=f"{target}-{stage}",
        )
        for target in Target
        for stage in Stage
    ]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("target", "stage"), cells())
def test_a_study_survives(standing: Federation, record: Record, target: Target, stage: Stage) -> None:
    study = small_study(standing.names)
    reference = standing.reference(study)
    if stage is Stage.IDLE:
        struck = time.time()
        kill(standing, target, SITE)
        bring_back(standing, target, None)
        run = standing.start(study)
        if run.wait() == ExitCode.SERVER_UNREACHABLE:  # said at once while the SuperLink is away
            assert "Fix: " in run.said()
            wait_for(standing.serves, "the coordinator to serve again", 60)
            run = standing.start(study)
    else:
        run = standing.start(study)
        run.wait_for_event("round", round=2)
        standing.plan.arm([stop_at(stage, target, SITE)])
        standing.plan.wait_stopped()
        struck = time.time()
        kill(standing, target, SITE)
        standing.plan.release()
        bring_back(standing, target, run)
    run.wait()
    run.assert_whole(reference)
    wait_for(lambda: not standing.orphans(), f"orphans to end: {standing.orphans()}", 20)
    record(
        FaultRow(
            "kill -9",
            f"{target}, {stage}",
            "complete, bit-equal",
            run.seconds_to_progress(struck, SITE if target in (Target.CLIENT, Target.WORKER) else ""),
            run.seconds - reference.seconds,
        )
    )
