"""Real processes on loopback with TLS and keys: equal to the simulation, one worker per site, fast rounds."""

from __future__ import annotations

import contextlib
import shutil
import statistics
import subprocess
from collections import defaultdict
from pathlib import Path

import psutil
import pytest
import torch

from semc.checkpoint import load_state
from semc.config import StudyConfig, parse_study
from semc.reporting.result import StudyResult
from simulation.make_sites import read_site_counts
from simulation.rehearsal import Rehearsal, read_result
from simulation.run import SITE_FILE
from simulation.study_run import run_study
from tests.end_to_end.conftest import STUDY

TOLERANCE = 1e-6


def command_of(process: psutil.Process) -> list[str]:
    """Return a process's command line; empty where it has ended meanwhile."""
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


@pytest.fixture(scope="module", params=[2, pytest.param(10, marks=pytest.mark.slow)])
def deployed_study(request: pytest.FixtureRequest) -> StudyConfig:
    return parse_study(STUDY, {"federation.rounds": request.param})


@pytest.fixture(scope="module")
def deployment(
    deployed_study: StudyConfig, hospitals: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, StudyResult, dict[str, set[int]]]:
    """Run every round through real processes and return the folder, the result and each site's worker pids."""
    folder = tmp_path_factory.mktemp("deployment")
    own = folder / "hospitals"
    shutil.copytree(hospitals, own)
    names = deployed_study.federation.sites
    counts = read_site_counts(hospitals)
    study_file = folder / "study.yaml"
    study_file.write_text(deployed_study.to_yaml(), encoding="utf-8")
    workers: dict[str, set[int]] = defaultdict(set)
    with Rehearsal(
        folder,
        {name: own / name / SITE_FILE for name in names},
        {name: counts[name].num_train_images for name in names},
    ) as rehearsal:
        started: set[psutil.Process] = set()

        def note_workers() -> None:
            for name in ("coordinator", *names):
                children = psutil.Process(rehearsal.pid(name)).children(recursive=True)
                started.update(children)
                if name == "coordinator":
                    continue
                workers[name] |= {child.pid for child in children if "client.worker" in command_of(child)}

        process = rehearsal.start_run(study_file)
        while process.poll() is None:
            note_workers()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
        note_workers()
        assert process.returncode == 0
        result = StudyResult.model_validate(read_result(rehearsal.home))
    assert [process for process in started if command_of(process)] == [], (
        "processes outlived their supervisor"
    )
    return folder, result, workers


def test_every_site_is_in_every_round(
    deployment: tuple[Path, StudyResult, dict[str, set[int]]], deployed_study: StudyConfig
) -> None:
    _, result, _ = deployment
    assert result.outcome == "complete"
    assert len(result.rounds) == deployed_study.federation.rounds
    for round_result in result.rounds:
        assert round_result.receipts == dict.fromkeys(deployed_study.federation.sites, "in")


def test_one_worker_process_per_site_throughout(
    deployment: tuple[Path, StudyResult, dict[str, set[int]]], deployed_study: StudyConfig
) -> None:
    _, result, workers = deployment
    assert {name: len(pids) for name, pids in workers.items()} == dict.fromkeys(
        deployed_study.federation.sites, 1
    )
    median = statistics.median(round_result.seconds for round_result in result.rounds)
    print(f"median {median:.2f} s per round")  # a figure to read; timings never gate


def test_the_simulation_gives_the_same_weights_and_counts(
    deployment: tuple[Path, StudyResult, dict[str, set[int]]],
    deployed_study: StudyConfig,
    hospitals: Path,
    tmp_path: Path,
) -> None:
    folder, result, _ = deployment
    simulated = run_study(deployed_study, tmp_path, hospitals)
    [run] = (folder / "coordinator" / "runs").iterdir()
    last = f"checkpoints/round-{deployed_study.federation.rounds:04d}"
    ours, _ = load_state(run / last)
    theirs, _ = load_state(tmp_path / "server" / last)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=TOLERANCE)
    assert [site.test_confusion for site in result.sites] == [site.test_confusion for site in simulated.sites]
