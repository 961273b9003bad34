"""Thirty-two hospitals' programs on one machine: everyone is in every round, and what a round costs beside training."""

from __future__ import annotations

import json
import os
import statistics
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.conftest import Record
from tests.faults.fault_row import FaultRow
from tests.faults.federation import Federation, running_federation, small_study
from tests.faults.study_run import StudyRun

SITES = tuple(f"site-{number:02d}" for number in range(1, 1 + int(os.environ.get("FAULT_SITES", "32"))))
ROUNDS = 10
_LOOK_SECONDS = 0.03
_MB_PER_SITE, _MB_BESIDE = 700, 2500
"""Private memory: worker 525, SuperNode 135, client 35; coordinator and test."""


def room_for_all() -> bool:
    """Whether memory and swap hold all these processes; without, the kernel would kill some at random."""
    free = psutil.virtual_memory().available + psutil.swap_memory().free
    return free > (_MB_PER_SITE * len(SITES) + _MB_BESIDE) * 1_000_000


pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    if not room_for_all():
        pytest.skip(
            f"{len(SITES)} clients need {_MB_PER_SITE * len(SITES) + _MB_BESIDE:,} MB of memory and swap"
        )
    with running_federation(tmp_path_factory.mktemp("crowd"), SITES) as running:
        yield running


class TrainSeconds:
    """Reads how long each site trained from the replies of the round in hand, while they lie on disk."""

    def __init__(self, run: StudyRun) -> None:
        self._run = run
        self._over = threading.Event()
        self.seen: dict[int, dict[str, float]] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> TrainSeconds:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        spool: Path = self._run.folder.spool
        while not self._over.wait(_LOOK_SECONDS):
            for file in spool.glob("round-*/*.json"):
                number = int(file.parent.name.removeprefix("round-"))
                round_seen = self.seen.setdefault(number, {})
                if file.stem not in round_seen:
                    try:
                        told = json.loads(file.read_text(encoding="utf-8"))["told"]
                    except (FileNotFoundError, ValueError):
                        continue  # the round is over
                    round_seen[file.stem] = told.get("train-seconds", 0.0)


def test_all_of_them_are_in_every_round(crowd: Federation, record: Record) -> None:
    study = small_study(
        SITES,
        training__local_steps=2,
        federation__rounds=ROUNDS,
        federation__join_timeout_seconds=900,
        federation__deadline_seconds=900,
        federation__bn_statistics="running",
    )
    run = crowd.start(study)
    run.wait_for_event("round", 900, round=1)
    with TrainSeconds(run) as train:
        run.wait(1800)
    run.assert_whole()
    assert crowd.orphans() == []
    rounds = {item.round: item.seconds for item in run.result().rounds}
    beside = [
        seconds - max(train.seen[number].values())
        for number, seconds in rounds.items()
        if number in train.seen
    ]
    record(
        FaultRow(
            "many sites",
            f"{len(SITES)} clients, {ROUNDS} rounds",
            "complete",
            figures={
                "seconds a round, median": statistics.median(rounds.values()),
                "beside the slowest training, median": statistics.median(beside),
                "longest": max(beside),
            },
        )
    )
