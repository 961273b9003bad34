"""Resumable tasks: what is finished is not repeated, what was interrupted starts anew."""

from __future__ import annotations

import os
import shutil
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from client.lock import held
from semc.config import load_study
from semc.exit_codes import ExitCode, SemcError
from semc.reporting.predictions import Predictions
from simulation.arm_run import ArmRun
from simulation.compare import Laboratory
from simulation.run import Resources, SimulatedRun, run_whole
from simulation.tasks import PREDICTIONS, Task, data_digest, run_tasks
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


def _meet_other(marks: Path, arm: str, other: str, folder: Path) -> ArmRun:
    """Stand in for training that ends only once another task has begun."""
    marks.joinpath(f"begun-{arm}").touch()
    deadline = time.monotonic() + 60
    while not marks.joinpath(f"begun-{other}").exists():
        if time.monotonic() > deadline:
            raise SemcError(
                ExitCode.RUN_FAILED, f"'{other}' never began beside '{arm}'.", "train both at once"
            )
        time.sleep(0.02)
    return _train(marks, arm, folder)


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


def test_a_damaged_record_is_trained_again(tmp_path: Path, quiet: Console) -> None:
    task = Task("a", tmp_path / "a", STUDY, "d", partial(_train, tmp_path, "A"))
    run_tasks([task], quiet)
    (tmp_path / "a" / PREDICTIONS).write_bytes(b"half a file")
    run_tasks([task], quiet)
    assert _times(tmp_path, "a") == 2
    assert task.finished() is not None


def test_the_digest_of_the_data_is_of_the_pictures_too(hospitals: Path, tmp_path: Path) -> None:
    """Phantom scanners of another severity draw other pictures under the same names."""
    first = data_digest(hospitals, ["north", "south"])
    copy = tmp_path / "copy"
    shutil.copytree(hospitals, copy)
    assert data_digest(copy, ["south", "north"]) == first
    (copy / "north" / "state").mkdir()
    (copy / "north" / "state" / "anything").touch()
    assert data_digest(copy, ["north", "south"]) == first
    picture = min((copy / "north" / "images").rglob("*.png"))
    content = picture.read_bytes()
    picture.unlink()  # it may be a hard link
    picture.write_bytes(content + b" ")
    assert data_digest(copy, ["north", "south"]) != first
    assert data_digest(copy, ["south"]) == data_digest(hospitals, ["south"])


def test_two_calls_never_write_to_one_folder(tmp_path: Path, quiet: Console) -> None:
    laboratory = Laboratory(STUDY, tmp_path, tmp_path / "out", [0], console=quiet)
    with held(tmp_path / "out" / ".lock", "taken", "wait"), pytest.raises(SemcError) as caught:
        laboratory.run([])
    assert caught.value.code is ExitCode.ALREADY_RUNNING
    assert laboratory.run([]) == []


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


def test_several_train_at_once_and_keep_their_order(tmp_path: Path, quiet: Console) -> None:
    tasks = [
        Task(arm, tmp_path / arm, STUDY, "d", partial(_meet_other, tmp_path, arm.upper(), other.upper()))
        for arm, other in (("a", "b"), ("b", "a"))
    ]
    runs = run_tasks(tasks, quiet, at_once=2)  # one after the other, the first would wait in vain
    assert [run.predictions[0].arm for run in runs] == ["A", "B"]


def test_no_task_begins_after_a_refusal(tmp_path: Path, quiet: Console) -> None:
    bad = Task("b", tmp_path / "b", STUDY, "d", _fail)
    later = [Task(f"c{n}", tmp_path / f"c{n}", STUDY, "d", partial(_train, tmp_path, "C")) for n in range(9)]
    with pytest.raises(SemcError, match="below its quorum"):
        run_tasks([bad, *later], quiet)
    assert _times(tmp_path, "c") <= 1  # the next one may have begun before the refusal was seen


@pytest.mark.parametrize(
    ("runs", "fraction", "expected"), [(1, 0.25, 0.25), (2, 0.25, 0.5), (8, 0.25, 1.0), (3, 0.0, 0.0)]
)
def test_runs_at_once_share_cores_and_gpus(
    monkeypatch: pytest.MonkeyPatch, runs: int, fraction: float, expected: float
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    share = Resources.share(runs, gpus_per_site=fraction)
    assert share.processes == (16 // runs if fraction == 0 else min(16 // runs, int(1 / expected)))
    assert share.gpus_per_site == expected
    assert share.total_cpus == 16 // runs
    assert Resources.share(100).total_cpus == 1
    on_cluster = Resources.share(runs, gpus_per_site=fraction, ray_address="auto")
    assert on_cluster.gpus_per_site == fraction  # a cluster's Ray counts over all runs


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
