"""A private study as real processes: what arrives is noised heads and ledger heads, and a spent budget is no crash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from client.privacy_gate import ledger_place
from semc.checkpoint import MODEL_PREFIX, load_state
from semc.config import load_site, parse_study
from semc.exit_codes import ExitCode
from semc.privacy.ledger import Ledger
from semc.privacy.limits import plan_cost
from semc.reporting.result import StudyResult
from simulation.rehearsal import Rehearsal, read_result
from tests.client.private_site import PRIVATE_TEXT, private_site

STUDY = parse_study(
    PRIVATE_TEXT,
    {
        "federation.quorum": 1,
        "federation.join_timeout_seconds": 300,
        "federation.deadline_seconds": 120,
        "pretraining": {"centres": 1, "patients": 4, "frames_per_patient": 2, "steps": 2, "batch_size": 4},
    },
)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, StudyResult]:
    """Run two rounds; the policy of `south` pays for one of them."""
    folder = tmp_path_factory.mktemp("private")
    budgets = {"north": 8.0, "south": plan_cost(STUDY, 1) * 1.01}
    for name, epsilon in budgets.items():
        private_site(folder / name, name=name, epsilon_total=epsilon)
        file = folder / name / "site.yaml"
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        content["data"]["root"] = str(folder / name / "images")
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
    study_file = folder / "study.yaml"
    study_file.write_text(STUDY.to_yaml(), encoding="utf-8")
    files = {name: folder / name / "site.yaml" for name in budgets}
    with Rehearsal(folder, files, dict.fromkeys(files, 18)) as rehearsal:
        code = rehearsal.run(study_file, quiet=True)
        result = StudyResult.model_validate(read_result(rehearsal.home))
    return folder, code, result


def test_the_round_goes_on_without_the_site_whose_budget_is_spent(
    deployment: tuple[Path, int, StudyResult],
) -> None:
    _, code, result = deployment
    assert code == ExitCode.COMPLETE_ON_SUBSET
    assert [item.receipts for item in result.rounds] == [
        {"north": "in", "south": "in"},
        {"north": "in", "south": "declined"},
    ]
    assert result.rounds[1].reasons == {"south": "E_BUDGET"}


def test_no_ledger_is_over_its_limit_and_each_head_the_coordinator_holds_is_in_one(
    deployment: tuple[Path, int, StudyResult],
) -> None:
    folder, _, result = deployment
    for name, rounds in (("north", 2), ("south", 1)):
        ledger = Ledger(ledger_place(load_site(folder / name / "site.yaml")))
        assert ledger.spent() == pytest.approx(plan_cost(STUDY, rounds))
        heads = [item.ledger_heads[name] for item in result.rounds if name in item.ledger_heads]
        assert len(heads) == rounds
        assert all(ledger.contains(head) for head in heads)
        assert not ledger.contains("0" * 64)


def test_only_the_heads_moved_and_the_result_tells_nothing_of_training(
    deployment: tuple[Path, int, StudyResult],
) -> None:
    folder, _, result = deployment
    [run] = (folder / "coordinator" / "runs").iterdir()
    first, last = (load_state(run / "checkpoints" / f"round-{number:04d}")[0] for number in (0, 2))
    moved = {
        name.removeprefix(MODEL_PREFIX)
        for name in first
        if name.startswith(MODEL_PREFIX) and not torch.equal(first[name], last[name])
    }
    assert moved == {name for name in map(_bare, first) if name.startswith(("classifiers.", "gate."))}
    assert all(not item.train_loss and not item.validation and not item.test for item in result.rounds)
    assert all(site.test_confusion is None for site in result.sites)
    statement = json.loads((run / "result.json").read_text(encoding="utf-8"))["guarantee"]
    assert statement["epsilon"] == pytest.approx(plan_cost(STUDY))
    assert "phantom" in statement["initial_weights"]


def _bare(name: str) -> str:
    return name.removeprefix(MODEL_PREFIX)
