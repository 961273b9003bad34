"""The faults of every `make test`, in one federation; and that the harness notices what it is there to notice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.bad_link import BadLink, Way
from tests.faults.conftest import Record
from tests.faults.cut import reset_in_the_middle
from tests.faults.federation import MARK, Federation, small_study, wait_for
from tests.faults.kill_cell import QUICK, survive
from tests.faults.plan import Stop
from tests.faults.schedules import QUICK_SEEDS, run_seeds
from tests.faults.strike import Stage, Target

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize(("target", "stage"), QUICK)
def test_a_study_survives(standing: Federation, record: Record, target: Target, stage: Stage) -> None:
    record(survive(standing, target, stage))


def test_random_kills_lose_nothing(
    standing: Federation, record_schedule: Callable[[dict[str, Any]], None]
) -> None:
    assert run_seeds(standing, QUICK_SEEDS, record_schedule) == {}


def test_a_reset_in_the_middle_of_an_upload(standing: Federation, link: BadLink, record: Record) -> None:
    record(reset_in_the_middle(standing, link, Way.UP))


def test_one_tensor_bent_by_a_millionth_is_another_study(standing: Federation) -> None:
    study = small_study(standing.names)
    reference = standing.reference(study)
    standing.plan.arm([Stop("executor", "aggregate", call=3, action="bend")])
    run = standing.start(study)
    run.wait()
    assert standing.plan.stopped() is not None
    run.assert_whole()
    with pytest.raises(AssertionError, match=reference.result().final_weights_sha256):
        run.assert_whole(reference)


def test_a_process_whose_parent_died_is_an_orphan(standing: Federation) -> None:
    assert standing.orphans() == []
    child = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'input()'], stdin=0, stdout=2).pid)"
    reading, writing = os.pipe()
    parent = subprocess.run(
        [sys.executable, "-S", "-c", child],
        env={**os.environ, MARK: str(standing.folder)},
        stdin=reading,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    try:
        assert int(parent.stdout) in {process.pid for process in standing.processes()}
        assert len(standing.orphans()) == 1
    finally:
        os.close(writing)
        os.close(reading)
    wait_for(lambda: not standing.orphans(), "the orphan to read the end of its input", 10)


def test_a_stop_that_nobody_comes_to_is_no_fault(standing: Federation) -> None:
    standing.plan.arm([Stop("executor", "checkpoint")])
    with pytest.raises(AssertionError, match="no process came"):
        standing.plan.wait_stopped(0.5)
