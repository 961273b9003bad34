"""One study under random faults: killed processes, lost replies, damaged files, at any instant."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter as Count
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from semc.config import StudyConfig
from semc.reporting import StudyResult
from semc.reporting.receipt import verify_chain
from server.global_model import GlobalModel, initial_model
from server.registry import Registry, rehearsal_registry
from server.run_folder import RunFolder
from tests.faults.forked.post_office import PostOffice
from tests.faults.forked.processes import TELL, fork, run_loop, serve_site

LONGEST_SECONDS = 90.0
_MOST_FAULTS = 6


class Fault(StrEnum):
    """What can happen."""

    SITE = "site"
    """One site's process is killed and started again."""
    LOOP = "loop"
    """The round loop is killed and started again."""
    ALL = "all"
    """Everything is killed, then started again."""
    UPLOAD = "upload"
    """The next reply breaks off."""
    CHECKPOINT = "checkpoint"
    """The round loop is killed and its newest checkpoint damaged on disk."""
    KEPT_REPLY = "kept reply"
    """The round loop is killed and a reply it had kept is damaged on disk."""


@dataclass(frozen=True)
class Strike:
    """One fault."""

    fault: Fault
    after_seconds: float
    """From the strike before."""
    site: int
    """Which site, where it is one."""
    pause_seconds: float
    """From the kill to the new start."""


def strikes(seed: int, study_seconds: float, num_sites: int) -> list[Strike]:
    """Return the faults of a seed, spread over the time that the study takes undisturbed."""
    draw = random.Random(seed)
    number = draw.randint(1, _MOST_FAULTS)
    return [
        Strike(
            draw.choice(list(Fault)),
            draw.uniform(0, 1.5 * study_seconds / number),
            draw.randrange(num_sites),
            draw.uniform(0, 0.3),
        )
        for _ in range(number)
    ]


class ForkedStudy:
    """One run: its processes, and what is done to them.

    Args:
        folder: For run folder and socket.
        study: What runs.
        site_files: Site to its file.
        model: What the study starts from.
    """

    def __init__(
        self, folder: Path, study: StudyConfig, site_files: dict[str, Path], model: GlobalModel
    ) -> None:
        folder.mkdir(parents=True)
        self.study, self._files, self._model = study, site_files, model
        self.run = RunFolder(folder / "run")
        registry = rehearsal_registry(dict.fromkeys(site_files, 12))
        self.run.create(study, registry)
        self._registry: Registry = registry
        self._nodes = dict(enumerate(site_files, start=2))
        self.office = PostOffice(folder / "s", self._nodes)
        self._sites: dict[int, int] = {}
        self._loop = 0
        self.hits = Count[str]()

    def go_through(self, schedule: list[Strike]) -> int:
        """Run the study to its end under a schedule; return the round loop's exit code.

        Raises:
            AssertionError: It did not end in time.
        """
        end = time.monotonic() + LONGEST_SECONDS
        with self.office:
            try:
                for node in self._nodes:
                    self._start_site(node)
                self._start_loop()
                for strike in schedule:
                    code = self._ended(strike.after_seconds)
                    if code is not None:
                        return code
                    self.hits[strike.fault] += 1
                    self._do(strike)
                while (code := self._ended(0.05)) is None:
                    if time.monotonic() > end:
                        self._have_everyone_tell()
                        raise AssertionError("the study did not end")
                return code
            finally:
                for process in (self._loop, *self._sites.values()):
                    _kill(process)

    def result(self) -> StudyResult:
        """Return the finished study."""
        return self.run.result()

    def _have_everyone_tell(self) -> None:
        """Have each process print where it stands."""
        for process in filter(None, (self._loop, *self._sites.values())):
            os.kill(process, TELL)
        time.sleep(1)

    def _do(self, strike: Strike) -> None:
        site = list(self._nodes)[strike.site]
        match strike.fault:
            case Fault.UPLOAD:
                self.office.lose_replies += 1
            case Fault.SITE:
                self._kill_site(site)
                time.sleep(strike.pause_seconds)
                self._start_site(site)
            case Fault.ALL:
                for node in self._nodes:
                    self._kill_site(node)
                self._again(strike)
                for node in self._nodes:
                    self._start_site(node)
            case _:
                self._again(strike)

    def _again(self, strike: Strike) -> None:
        """Kill the round loop, perhaps damage what it left, and start it again."""
        _kill(self._loop)
        self._loop = 0
        if strike.fault is Fault.CHECKPOINT:
            # Two whole ones are kept in any case; the newest of one is all there is.
            states = sorted(self.run.checkpoints.glob("round-*/state.json"))
            if len(states) > 1:
                _damage(states[-1])
        if strike.fault is Fault.KEPT_REPLY:
            for file in sorted(self.run.spool.glob("round-*/*.safetensors"))[:1]:
                _damage(file)
        time.sleep(strike.pause_seconds)
        self._start_loop()

    def _start_loop(self) -> None:
        self.office.forget_run()
        self._loop = fork(
            lambda: run_loop(self.office.socket, self.study, self._registry, self.run, self._model)
        )

    def _start_site(self, node: int) -> None:
        file = self._files[self._nodes[node]]
        self._sites[node] = fork(lambda: serve_site(self.office.socket, node, file))

    def _kill_site(self, node: int) -> None:
        _kill(self._sites.pop(node))
        self.office.went_offline(node)

    def _ended(self, seconds: float) -> int | None:
        """Wait a little for the round loop's end; return its exit code."""
        end = time.monotonic() + seconds
        while True:
            process, status = os.waitpid(self._loop, os.WNOHANG)
            if process:
                self._loop = 0
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() >= end:
                return None
            time.sleep(0.01)


def check_whole(found: StudyResult, reference: StudyResult) -> None:
    """Check that nothing was lost, doubled or mixed up.

    Raises:
        AssertionError: Something was.
    """
    assert found.outcome == "complete"
    assert found.final_weights_sha256 == reference.final_weights_sha256
    for name in ("receipts", "train_loss", "validation", "test"):
        assert [getattr(item, name) for item in found.rounds] == [
            getattr(item, name) for item in reference.rounds
        ]
    assert [site.test_confusion for site in found.sites] == [site.test_confusion for site in reference.sites]
    rounds = [(receipt.round, receipt.kind) for receipt in found.signed_receipts]
    assert rounds == [(receipt.round, receipt.kind) for receipt in reference.signed_receipts]
    verify_chain(found.signed_receipts, found.receipts_public_key, count=len(reference.signed_receipts))


def model_of(study: StudyConfig) -> GlobalModel:
    """Return what the study starts from."""
    return initial_model(study)


def _damage(file: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _kill(process: int) -> None:
    """Kill -9 a child and collect it."""
    if process:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
