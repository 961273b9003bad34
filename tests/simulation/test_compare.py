"""What a comparison writes once its arms are trained; training itself is stood in for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from semc.config import StudyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.reporting.predictions import Predictions
from simulation.arm_relations import remark_on_one_training
from simulation.arm_run import ArmRun
from simulation.cli import app
from simulation.compare import MARKDOWN, REPORT, Laboratory, compare
from simulation.tasks import Task

PATIENTS, FRAMES = 20, 4


def _answers(task: Task, site: str) -> Predictions:
    """Return answers of one arm; the plain network's are right more often."""
    arm, seed = task.name.split(",")[0], task.study.seed
    k = len(task.study.data.classes)
    labels_B = np.arange(PATIENTS * FRAMES) % k
    rng = np.random.default_rng([seed, *map(ord, arm + site)])
    right_B = rng.random(len(labels_B)) < (0.9 if "resnet" in arm else 0.5)
    called_B = np.where(right_B, labels_B, (labels_B + 1) % k)
    return Predictions(
        arm,
        seed,
        site if arm.startswith(("local", "silo")) else "",
        site,
        tuple(np.repeat(np.arange(PATIENTS), FRAMES).tolist()),
        tuple(labels_B.tolist()),
        np.eye(k, dtype=np.float32)[called_B],
    )


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """Stand in for all training; returns the tasks asked for."""
    asked: list[Task] = []

    def run_tasks(tasks: Sequence[Task], console: Console, **options: object) -> list[ArmRun]:
        asked.extend(tasks)
        return [
            ArmRun([_answers(task, site) for site in task.study.federation.sites], {}, 1.0) for task in tasks
        ]

    monkeypatch.setattr("simulation.compare.run_tasks", run_tasks)
    return asked


def _laboratory(study: StudyConfig, hospitals: Path, out: Path) -> Laboratory:
    return Laboratory(study, hospitals, out, [0, 1], console=Console(quiet=True))


@pytest.mark.parametrize(
    "command",
    [
        ("compare", "phantom_dp", "--arms", "local,pooled"),
        ("loco", "phantom_dp", "--arm", "silo"),
        ("compare", "phantom_dp", "--sites", "."),
        ("run", "phantom_dp", "--compare-local"),
    ],
)
def test_a_private_study_has_no_arms_and_nothing_is_drawn_for_it(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(SemcError) as refusal:
        CliRunner().invoke(app, [*command, "--out", str(out)], catch_exceptions=False)
    assert refusal.value.code is ExitCode.USAGE
    assert not out.exists()
    if command[0] != "run":
        assert "semc-sim utility" in refusal.value.fix


def test_a_plan_that_is_too_expensive_is_refused_before_hospitals_are_drawn(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["run", "phantom_dp", "--set", "privacy.epsilon=0.5", "--out", str(out)]
    with pytest.raises(SemcError) as refusal:
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert refusal.value.code is ExitCode.BUDGET_REFUSED
    assert not out.exists()


def test_any_arm_can_be_the_one_others_are_compared_with(
    hospitals: Path, study: StudyConfig, tmp_path: Path, trained: list[Task]
) -> None:
    names = ["pooled", "pooled+resnet", "pooled+no-ace"]
    compare(_laboratory(study, hospitals, tmp_path), names, against=" pooled")
    markdown = (tmp_path / MARKDOWN).read_text(encoding="utf-8")
    page = (tmp_path / REPORT).read_text(encoding="utf-8")
    for text in (markdown, page):
        assert "Every arm minus pooled, centre by centre" in text
        assert "against pooled" in text
        assert "No federation was run, so nothing is said of training together." in text
        assert "How do the arms of" in text
        for absent in ("against local", "against fedavg", "Training alone was not run", "gap closed"):
            assert absent not in text
    table = markdown.split("### Every arm minus pooled, centre by centre")[1].split("###")[0]
    assert table.count("\n| pooled+resnet |") == table.count("\n| pooled+no-ace |") == 1
    better = next(line for line in table.splitlines() if line.startswith("| pooled+resnet |"))
    assert better.count("↑") == len(study.federation.sites) + 1
    assert "\n| pooled |" not in table


def test_what_is_compared_with_what_changes_no_task(
    hospitals: Path, study: StudyConfig, tmp_path: Path, trained: list[Task]
) -> None:
    """Finished trainings serve whatever is asked of them afterwards."""
    names = ["local", "silo", "silo+resnet"]
    for against in ("", "silo"):
        compare(_laboratory(study, hospitals, tmp_path), names, against=against)
    half = len(trained) // 2
    assert [task.digest for task in trained[:half]] == [task.digest for task in trained[half:]]
    assert "Every arm minus silo," in (tmp_path / MARKDOWN).read_text(encoding="utf-8")


def test_an_arm_that_is_not_run_is_refused_before_anything_is_trained(
    study: StudyConfig, tmp_path: Path, trained: list[Task]
) -> None:
    for against, problem in (("silo", "'silo' is none of the arms"), ("nonsense", "'nonsense' is not known")):
        with pytest.raises(SemcError, match=problem) as caught:
            compare(Laboratory(study, tmp_path, tmp_path, [0]), ["local", "fedavg"], against=against)
        assert caught.value.code is ExitCode.USAGE
    assert trained == []


def test_the_option_is_explained() -> None:
    assert "--against" in CliRunner().invoke(app, ["compare", "--help"]).output


def test_two_arms_of_one_training_are_told_apart_from_two_confirmations(
    hospitals: Path, study: StudyConfig, tmp_path: Path, trained: list[Task]
) -> None:
    remark = remark_on_one_training(("fedavg", "silo"))
    compare(_laboratory(study, hospitals, tmp_path / "both"), ["local", "fedavg", "silo"])
    markdown = (tmp_path / "both" / MARKDOWN).read_text(encoding="utf-8")
    with_both = [part for part in markdown.split("### ") if "| silo |" in part and "| fedavg |" in part]
    assert len(with_both) == 6  # arms, differences, two scores, planes, calibration
    assert all(remark in part for part in with_both)
    compare(_laboratory(study, hospitals, tmp_path / "apart"), ["local", "fedavg", "fedbn"])
    assert "one training" not in (tmp_path / "apart" / MARKDOWN).read_text(encoding="utf-8")
