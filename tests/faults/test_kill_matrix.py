"""Every process is killed in every stage: the study still ends whole, with the bits of the uninterrupted one."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Record
from tests.faults.federation import Federation
from tests.faults.kill_cell import QUICK, survive
from tests.faults.strike import Stage, Target

CELLS = [(target, stage) for target in Target for stage in Stage if (target, stage) not in QUICK]
"""The others are in test_quick.py."""


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("target", "stage"), CELLS)
def test_a_study_survives(standing: Federation, record: Record, target: Target, stage: Stage) -> None:
    record(survive(standing, target, stage))
