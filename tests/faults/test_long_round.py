"""A round that is longer than any wait to join: the case of every real hospital, and of no short test."""

from __future__ import annotations

import time

import pytest

from tests.faults.conftest import Record
from tests.faults.fault_row import FaultRow
from tests.faults.federation import Federation, small_study, wait_for
from tests.faults.strike import Stage, Target, bring_back, kill, stop_at

SITE = "north"
JOIN_SECONDS = 30
"""What the study waits for sites to join."""
TRAIN_SECONDS = 50
"""How long a site is in the middle of its training, and answers nobody."""


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("target", [Target.SERVERAPP, Target.SUPERLINK])
def test_a_site_that_trains_longer_than_anybody_waits_to_join(
    standing: Federation, record: Record, target: Target
) -> None:
    standing.reference(small_study(standing.names))  # the sites' libraries are loaded
    study = small_study(standing.names, name="long-round", federation__join_timeout_seconds=JOIN_SECONDS)
    reference = standing.reference(study)
    run = standing.start(study)
    run.wait_for_event("round", round=2)
    standing.plan.arm([stop_at(Stage.TRAIN, target, SITE)])
    standing.plan.wait_stopped()
    struck = time.time()
    kill(standing, target, SITE)
    bring_back(standing, target, run)
    time.sleep(TRAIN_SECONDS)
    standing.plan.release()
    run.wait()
    run.assert_whole(reference)
    wait_for(lambda: not standing.orphans(), f"orphans to end: {standing.orphans()}", 20)
    record(
        FaultRow(
            "kill -9, long round",
            f"{target}, train for {TRAIN_SECONDS} s",
            "complete, bit-equal",
            run.seconds_to_progress(struck),
            run.seconds - reference.seconds,
        )
    )
