"""One study as its user sees it: the program that follows it, its events, its end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semc.config import StudyConfig
from semc.reporting import StudyResult
from server.events import EventReader
from server.home import Home
from server.run_folder import RunFolder
from simulation.rehearsal import program

LONGEST_SECONDS = 420.0


class StudyRun:
    """`semc-server run` of one study, and `semc-server resume` after everything was killed.

    Args:
        home: The coordinator's home.
        study: What runs.
        folder: For the study file and what the follower says.
        environment: Of the follower.
    """

    def __init__(self, home: Home, study: StudyConfig, folder: Path, environment: Mapping[str, str]) -> None:
        self.study = study
        self._home, self._place, self._environment = home, folder, dict(environment)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "study.yaml"
        file.write_text(study.to_yaml(), encoding="utf-8")
        self._before = set(home.runs.iterdir()) if home.runs.is_dir() else set()
        self._folder: RunFolder | None = None
        self._log = folder / "follower.log"
        self._log.unlink(missing_ok=True)
        self.started = time.time()
        self.seconds = 0.0
        self._follower = self._follow("run", str(file))

    def resume(self) -> None:
        """Follow on with `semc-server resume`, the first follower being dead."""
        self._follower.kill()
        self._follower.wait()
        self._follower = self._follow("resume", self.folder.root.name)

    def _follow(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*program("semc-server"), *arguments, "--home", str(self._home.root)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=self._environment,
            )

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        if self._folder is None:
            new = [path for path in self._home.runs.iterdir() if path not in self._before]
            assert len(new) == 1, f"one run was started and {len(new)} folders were made; {self.said()}"
            self._folder = RunFolder(new[0])
        return self._folder

    def events(self) -> list[Mapping[str, Any]]:
        """Return all events so far."""
        if self._folder is None and not set(self._home.runs.glob("*")) - self._before:
            return []
        return EventReader(self.folder.events_file).new()

    def wait_for_event(self, name: str, seconds: float = 240.0, **fields: object) -> None:
        """Wait until an event with these fields was written."""
        end = time.monotonic() + seconds
        wanted = {"event": name, **fields}.items()
        while not any(wanted <= event.items() for event in self.events()):
            assert time.monotonic() < end, f"no event {name} {fields} within {seconds:.0f} s; {self.said()}"
            assert self._follower.poll() is None, f"ended before {name}: {self.said()}"
            time.sleep(0.02)

    def wait(self, seconds: float = LONGEST_SECONDS) -> int:
        """Wait for the end of the follower; return its exit code."""
        try:
            code = self._follower.wait(seconds)
        except subprocess.TimeoutExpired:
            last = [event for event in self.events() if event["event"] != "pretraining"][-4:]
            raise AssertionError(f"the study did not end in {seconds:.0f} s; last events: {last}") from None
        self.seconds = self.seconds or time.time() - self.started
        if code == os.EX_OK:
            assert self.folder.root.is_dir()  # found now: a later run makes another
        return code

    def has_ended(self) -> bool:
        """Whether the follower has told the end."""
        return self._follower.poll() is not None

    def said(self) -> str:
        """Return the end of what the followers printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-3000:]

    def result(self) -> StudyResult:
        """Return the finished study."""
        return self.folder.result()

    def assert_whole(self, reference: StudyRun | None = None) -> None:
        """Check that nothing was lost or counted twice: complete, every site once in every round, the reference's bits.

        Raises:
            AssertionError: It was not so.
        """
        code = self.wait(1)
        assert code == os.EX_OK, f"exit code {code}: {self.said()}"
        result, federation = self.result(), self.study.federation
        everyone = dict.fromkeys(sorted(federation.sites), "in")
        rounds = list(range(1, federation.rounds + 1))
        assert result.outcome == "complete"
        assert [item.round for item in result.rounds] == rounds
        assert [item.receipts for item in result.rounds] == [everyone] * len(rounds)
        assert [receipt.round for receipt in result.signed_receipts] == [*rounds, federation.rounds + 1]
        assert all(sorted(receipt.sites) == sorted(everyone) for receipt in result.signed_receipts)
        assert all(receipt.complete for receipt in result.signed_receipts)
        if reference is not None:
            expected = reference.result()
            assert result.final_weights_sha256 == expected.final_weights_sha256
            assert _what_was_computed(result) == _what_was_computed(expected)

    def seconds_to_progress(self, moment: float, site: str = "") -> float | None:
        """Return how long after a moment (Unix time) the study next went on; None where it never did.

        Args:
            moment: When the fault came.
            site: Only what this hospital does counts; "" = any hospital, or a finished round.
        """
        steps = ("joined", "reply") if site else ("joined", "reply", "aggregated", "evaluated", "finished")
        times = [
            event["time"]
            for event in self.events()
            if event["event"] in steps and (not site or event["site"] == site)
        ]
        return next((at - moment for at in sorted(times) if at > moment), None)


def _what_was_computed(result: StudyResult) -> list[object]:
    """Return every number of a result that must not depend on what went wrong on the way."""
    return [
        [(item.train_loss, item.validation, item.test) for item in result.rounds],
        [(site.site, site.test_confusion) for site in result.sites],
        [
            (receipt.incoming_sha256, receipt.outgoing_sha256, site, part.payload_sha256, part.weight)
            for receipt in result.signed_receipts
            for site, part in sorted(receipt.sites.items())
        ],
    ]
