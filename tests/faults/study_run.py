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
                [*program("semc-server"), *arguments, "--home", str(self._home.root), "--format", "json"],
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
        assert self.folder.root.is_dir()
        return code

    def said(self) -> str:
        """Return the end of what the followers printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-600:]

    def result(self) -> StudyResult:
        """Return the finished study."""
        return self.folder.result()

    def assert_whole(self, reference: StudyRun | None = None) -> None:
        """Check that nothing was lost: complete, every site in every round, the bits of the reference.

        Raises:
            AssertionError: It was not so.
        """
        code = self.wait(1)
        assert code == os.EX_OK, f"exit code {code}: {self.said()}"
        result = self.result()
        everyone = dict.fromkeys(sorted(self.study.federation.sites), "in")
        assert result.outcome == "complete"
        assert [item.round for item in result.rounds] == list(range(1, self.study.federation.rounds + 1))
        assert [item.receipts for item in result.rounds] == [everyone] * len(result.rounds)
        if reference is not None:
            expected = reference.result()
            assert result.final_weights_sha256 == expected.final_weights_sha256
            assert [item.train_loss for item in result.rounds] == [
                item.train_loss for item in expected.rounds
            ]
            assert [item.validation for item in result.rounds] == [
                item.validation for item in expected.rounds
            ]
            assert [site.test_confusion for site in result.sites] == [
                site.test_confusion for site in expected.sites
            ]

    def first_progress_after(self, moment: float) -> float | None:
        """Return when (Unix time) a site's reply or a finished round next came; None where none did."""
        steps = ("joined", "reply", "aggregated", "evaluated", "finished")
        times = [event["time"] for event in self.events() if event["event"] in steps]
        return next((at for at in sorted(times) if at > moment), None)
