"""Two hundred studies under random faults, from seeds: none loses, doubles or mixes up anything."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from semc.config import StudyConfig
from semc.reporting import StudyResult
from server.global_model import GlobalModel
from server.spool import Spool, SpooledReply
from tests.faults.federation import make_hospitals, small_study
from tests.faults.forked.schedule import Fault, ForkedStudy, Strike, check_whole, model_of, strikes

NAMES = ("north", "south")
SCHEDULES = int(os.environ.get("FORKED_SCHEDULES", "200"))
BLOCK = 20
BLOCKS = [range(start, min(start + BLOCK, SCHEDULES)) for start in range(0, SCHEDULES, BLOCK)]


class Laboratory:
    """Hospitals, a study and its undisturbed end."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)  # before the first fork: OpenMP's threads do not survive one
        self._folder = folder
        self.files = make_hospitals(folder / "hospitals", NAMES, checkpoint_seconds=0)
        self.study: StudyConfig = small_study(
            NAMES, training__local_steps=3, federation__deadline_seconds=60, federation__retries=6
        )
        self.model: GlobalModel = model_of(self.study)
        self._number = 0
        start = time.monotonic()
        self.reference: StudyResult = self.go_through([]).result()
        self.seconds = time.monotonic() - start

    def go_through(self, schedule: list[Strike]) -> ForkedStudy:
        """Run the study from its beginning under a schedule."""
        for file in self.files.values():
            shutil.rmtree(file.parent / "state", ignore_errors=True)
        self._number += 1
        run = ForkedStudy(self._folder / str(self._number), self.study, self.files, self.model)
        code = run.go_through(schedule)
        assert code == 0, f"exit code {code}"
        return run


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    folder = Path(tmp_path_factory.mktemp("f"))
    yield Laboratory(folder)
    shutil.rmtree(folder, ignore_errors=True)


def go_through_seeds(
    laboratory: Laboratory, seeds: range, tell: Callable[[dict[str, Any]], None]
) -> dict[int, str]:
    """Run the schedules of some seeds; return what was wrong, by seed."""
    problems: dict[int, str] = {}
    before = len(psutil.Process().children(recursive=True))
    for seed in seeds:
        schedule = strikes(seed, laboratory.seconds, len(NAMES))
        hits: Counter[str] = Counter()
        start, problem = time.monotonic(), ""
        try:
            run = laboratory.go_through(schedule)
            hits = run.hits
            check_whole(run.result(), laboratory.reference)
            assert len(psutil.Process().children(recursive=True)) == before, "an orphan"
        except AssertionError as error:
            problem = problems[seed] = str(error)[:400] or "not whole"
        tell(
            {
                "kind": "forked processes",
                "seed": seed,
                "strikes": len(schedule),
                "hits": sum(hits.values()),
                "what": [f"{strike.fault} +{strike.after_seconds:.2f} s" for strike in schedule],
                "seconds": round(time.monotonic() - start, 1),
                "problem": problem,
            }
        )
    return problems


@pytest.mark.faults
@pytest.mark.timeout(120 * BLOCK)
@pytest.mark.parametrize("seeds", BLOCKS, ids=lambda seeds: f"from {seeds.start}")
def test_random_schedules_lose_nothing(
    laboratory: Laboratory, record_schedule: Callable[[dict[str, Any]], None], seeds: range
) -> None:
    assert go_through_seeds(laboratory, seeds, record_schedule) == {}


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_control_a_loop_that_believes_damaged_replies_is_noticed(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the hash of what was kept a flipped bit ends in the weights, and the comparison sees it."""

    def believing(spool: Spool, description: Path) -> Any:
        content = json.loads(description.read_bytes())
        content.pop("sha256")
        return SpooledReply.model_validate(content)

    monkeypatch.setattr(Spool, "_load", believing)
    for seed in range(40):
        share = seed / 40
        schedule = [Strike(Fault.KEPT_REPLY, share * laboratory.seconds, 0, 0.0)]
        run = laboratory.go_through(schedule)
        if run.result().final_weights_sha256 != laboratory.reference.final_weights_sha256:
            return
    pytest.fail("forty kills and no damaged reply was ever used")


def test_a_seed_is_a_schedule_and_seeds_reach_everything() -> None:
    assert strikes(7, 3.0, 2) == strikes(7, 3.0, 2)
    drawn = [strike for seed in range(200) for strike in strikes(seed, 3.0, 2)]
    assert {strike.fault for strike in drawn} == set(Fault)
    assert {strike.site for strike in drawn} == {0, 1}
