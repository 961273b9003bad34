"""Resumable tasks: what is finished is not repeated, what was interrupted starts anew."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from semc.config import load_study
from semc.exit_codes import ExitCode, SemcError
from semc.reporting.predictions import Predictions
from simulation.arm_run import ArmRun
from simulation.run import SimulatedRun, run_whole
from simulation.tasks import Task, run_tasks
from tests.semc.reporting.study_result import study_result

STUDY = load_study("phantom_smoke")
K = len(STUDY.data.classes)


def _train(marks: Path, arm: str, folder: Path) -> ArmRun:
    """Stand in for training; leaves a mark for every call, and a heavy file in the work folder."""
    folder.mkdir()
    (folder / "weights").write_bytes(b"x" * 1000)
    marks.joinpath(arm).open("a").write("trained\n")
    answers = Predictions(arm, 0, "", "north", (0, 1), (0, 1), np.full((2, K), 1 / K, np.float32))
    return ArmRun([answers], {"north": [(1, 0.5)]}, 1.5)


def _fail(folder: Path) -> ArmRun:
    folder.mkdir()
    raise SemcError(ExitCode.QUORUM_LOST, "Round 2 ended below its quorum.", "mend it")


def _times(tmp_path: Path, arm: str) -> int:
    file = tmp_path / arm.upper()
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.fixture
def quiet() -> Console:
    return Console(quiet=True)


def test_finished_tasks_are_read_back(tmp_path: Path, quiet: Console) -> None:
    task = Task("a", tmp_path / "a", STUDY, "d", partial(_train, tmp_path, "A"))
    first = run_tasks([task], quiet)
    second = run_tasks([task], quiet)
    assert _times(tmp_path, "a") == 1
    assert second[0].predictions[0].key == first[0].predictions[0].key
    assert second[0].curves == first[0].curves == {"north": [(1, 0.5)]}
    assert not (tmp_path / "a" / "work").exists()


def test_other_data_or_settings_are_another_task(tmp_path: Path, quiet: Console) -> None:
    train = partial(_train, tmp_path, "A")
    run_tasks([Task("a", tmp_path / "a", STUDY, "d", train)], quiet)
    run_tasks([Task("a", tmp_path / "a", STUDY, "other images", train)], quiet)
    run_tasks([Task("a", tmp_path / "a", STUDY.model_copy(update={"seed": 5}), "other images", train)], quiet)
    assert _times(tmp_path, "a") == 3
    other = STUDY.model_copy(update={"seed": 5})
    run_tasks([Task("a", tmp_path / "a", other, "other images", train, "at every site")], quiet)
    assert _times(tmp_path, "a") == 4


def test_what_an_interruption_left_starts_anew(tmp_path: Path, quiet: Console) -> None:
    task = Task("a", tmp_path / "a", STUDY, "d", partial(_train, tmp_path, "A"))
    run_tasks([task], quiet)
    (tmp_path / "a" / "finished.json").unlink()
    (tmp_path / "a" / "work").mkdir()
    (tmp_path / "a" / "work" / "half").touch()
    run_tasks([task], quiet, keep_models=True)
    assert _times(tmp_path, "a") == 2
    assert sorted(path.name for path in (tmp_path / "a" / "work").iterdir()) == ["weights"]


def test_a_refusal_keeps_its_number_and_the_finished_tasks(tmp_path: Path, quiet: Console) -> None:
    good = Task("a", tmp_path / "a", STUDY, "d", partial(_train, tmp_path, "A"))
    bad = Task("b", tmp_path / "b", STUDY, "d", _fail)
    with pytest.raises(SemcError) as caught:
        run_tasks([good, bad], quiet)
    assert caught.value.code is ExitCode.QUORUM_LOST
    assert good.finished() is not None
    assert bad.finished() is None


def test_a_run_with_a_site_missing_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = SimulatedRun(STUDY, tmp_path)
    for outcome in ("complete", "complete_on_subset"):
        result = study_result().model_copy(update={"outcome": outcome})
        monkeypatch.setattr("simulation.run.run_simulation", lambda *_, result=result: result)
        if outcome == "complete":
            assert run_whole(run) is result
            continue
        with pytest.raises(SemcError, match="cannot be compared") as caught:
            run_whole(run)
        assert caught.value.code is ExitCode.COMPLETE_ON_SUBSET
