"""Kills in mode patient_dp: the study ends whole, and no ledger is over its budget whatever had to be done twice."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from client.privacy_gate import ledger_place
from semc.config import StudyConfig, load_site, parse_study
from semc.exit_codes import ExitCode
from semc.privacy.ledger import Ledger
from semc.privacy.limits import plan_cost
from tests.client.private_site import PRIVATE_TEXT, private_site
from tests.faults.conftest import Record
from tests.faults.fault_row import FaultRow
from tests.faults.federation import Federation, wait_for
from tests.faults.strike import Stage, Target, bring_back, kill, stop_at
from tests.faults.study_run import StudyRun

SITE, TIGHT = "north", "east"
PLENTY = 60.0

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


def private_study(names: Sequence[str], **federation: object) -> StudyConfig:
    return parse_study(
        PRIVATE_TEXT,
        {
            "federation.sites": list(names),
            "federation.join_timeout_seconds": 300,
            "federation.deadline_seconds": 300,
            "pretraining": {
                "centres": 1,
                "patients": 4,
                "frames_per_patient": 2,
                "steps": 2,
                "batch_size": 4,
            },
            **{f"federation.{name}": value for name, value in federation.items()},
        },
    )


BOTH_ROUNDS = plan_cost(private_study(("north", "south")), 2)
BUDGETS = {"north": PLENTY, "south": PLENTY, TIGHT: BOTH_ROUNDS * 1.01}


@pytest.fixture(scope="module")
def private_federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Two hospitals with a large budget, one that can pay for a study of two rounds and no more."""
    folder: Path = tmp_path_factory.mktemp("private")
    files = {}
    for name, epsilon in BUDGETS.items():
        private_site(folder / name, name=name, epsilon_total=epsilon)
        files[name] = folder / name / "site.yaml"
        content = yaml.safe_load(files[name].read_text(encoding="utf-8"))
        content["data"]["root"] = str(folder / name / "images")
        files[name].write_text(yaml.safe_dump(content), encoding="utf-8")
    with Federation(folder, files) as running:
        yield running


def spent(federation: Federation) -> dict[str, float]:
    """Return what every hospital's ledger says, having checked that none is over its budget."""
    found = {
        name: Ledger(ledger_place(load_site(file))).spent() for name, file in federation.site_files.items()
    }
    assert all(found[name] <= BUDGETS[name] for name in found), found
    return found


def struck_in_round(
    federation: Federation, study: StudyConfig, target: Target, stage: Stage, site: str
) -> tuple[StudyRun, float]:
    """Start a study, kill a target in its second round, bring it back; return the run and the moment."""
    run = federation.start(study)
    run.wait_for_event("round", round=2)
    federation.plan.arm([stop_at(stage, target, site, private=True)])
    federation.plan.wait_stopped()
    struck = time.time()
    kill(federation, target, site)
    federation.plan.release()
    bring_back(federation, target, run)
    return run, struck


@pytest.mark.parametrize(
    ("target", "stage"),
    [
        (Target.WORKER, Stage.TRAIN),
        (Target.CLIENT, Stage.UPLOAD),
        (Target.SUPERLINK, Stage.DOWNLOAD),
        (Target.SERVERAPP, Stage.SPOOL),
        (Target.ALL, Stage.CHECKPOINT),
    ],
)
def test_a_private_study_survives_within_budget(
    private_federation: Federation, record: Record, target: Target, stage: Stage
) -> None:
    private_federation.start_what_ended()
    run, struck = struck_in_round(private_federation, private_study(("north", "south")), target, stage, SITE)
    run.wait()
    run.assert_whole()
    wait_for(lambda: not private_federation.orphans(), "orphans to end", 20)
    record(
        FaultRow(
            "kill -9, patient_dp",
            f"{target}, {stage}",
            "complete, within budget",
            run.seconds_to_progress(struck, SITE if target in (Target.CLIENT, Target.WORKER) else ""),
            figures={"epsilon spent so far, of 60": spent(private_federation)[SITE]},
        )
    )


def test_a_budget_without_reserve_is_never_over_and_the_study_says_that_it_lost_a_site(
    private_federation: Federation, record: Record
) -> None:
    """A charged round died with its worker: making it again is not paid for, so the hospital declines."""
    private_federation.start_what_ended()
    study = private_study(("north", TIGHT), quorum=1)
    run, _ = struck_in_round(private_federation, study, Target.WORKER, Stage.TRAIN, TIGHT)
    assert run.wait() == ExitCode.COMPLETE_ON_SUBSET, run.said()
    last = run.result().rounds[-1]
    assert last.receipts == {"north": "in", TIGHT: "declined"}
    assert last.reasons == {TIGHT: "E_BUDGET"}
    record(
        FaultRow(
            "kill -9, patient_dp",
            "worker, train, budget for two rounds",
            f"exit {int(ExitCode.COMPLETE_ON_SUBSET)}: complete on a subset, declined E_BUDGET",
            figures={
                "epsilon spent": spent(private_federation)[TIGHT],
                "epsilon allowed": BUDGETS[TIGHT],
            },
        )
    )
