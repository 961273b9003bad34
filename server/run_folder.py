"""One run = one folder: everything the round loop reads and writes."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from semc.config import StudyConfig, load_study
from semc.exit_codes import ExitCode, SemcError
from semc.reporting import StudyResult
from semc.whole_file import sync, write_whole
from server.registry import Registry
from server.site_weights import site_weights

STUDY_FILE: Final = "study.yaml"
_FLOWER_RUN: Final = "flower-run"
_LOCK_SECONDS: Final = 10.0


@dataclass(frozen=True)
class RunFolder:
    """Places inside a run folder.

    ```
    study.yaml       the resolved study
    registry.json    enrolment of its sites when the run began
    events.jsonl     progress, one line per event
    lock             held by the round loop while it runs
    flower-run       Flower's number of the run (deployed runs only)
    checkpoints/     round-0001, ...: model, server optimiser, history, signed receipts
    spool/           replies of the round in hand
    receipts.key     signs the receipts (simulated runs only; a coordinator has one in its home)
    trunk/           the pretrained trunk, in studies that begin with one
    result.json      written at the end, also where that is a failure
    semc-study/      the bundle handed to Flower (deployed runs only)
    ```
    """

    root: Path

    @property
    def study_file(self) -> Path:
        """The resolved study."""
        return self.root / STUDY_FILE

    @property
    def events_file(self) -> Path:
        """Progress, one JSON line per event."""
        return self.root / "events.jsonl"

    @property
    def receipts_key(self) -> Path:
        """Key that signs the receipts of a simulated run."""
        return self.root / "receipts.key"

    @property
    def result_file(self) -> Path:
        """The finished study."""
        return self.root / "result.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.root / "checkpoints"

    @property
    def spool(self) -> Path:
        """Folder of the replies of the round in hand."""
        return self.root / "spool"

    @property
    def trunk(self) -> Path:
        """Folder of the trunk that the study's pretraining made."""
        return self.root / "trunk"

    @property
    def bundle(self) -> Path:
        """Folder of the bundle; its name is the bundle's project name."""
        return self.root / "semc-study"

    def create(self, study: StudyConfig, registry: Registry) -> None:
        """Make the folder with a study and the enrolment of its sites.

        Raises:
            SemcError: KEY_UNREGISTERED where a named site is not enrolled, USAGE where one lacks the number of images
                that the study weighs it by, DISK where it cannot be written.
        """
        enrolled = registry.restricted_to(study.federation.sites)
        site_weights(study.federation, enrolled)  # refused here, before anything runs
        try:
            self.root.mkdir(parents=True)
            enrolled.save(self.root)
            write_whole(self.study_file, study.to_yaml().encode())  # last: it makes the folder a run
            sync(self.root.parent)
        except OSError as error:
            raise SemcError(
                ExitCode.DISK,
                f"The run folder cannot be made ({error.strerror}).",
                "make the coordinator's home writable and free space",
            ) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run: one round loop at a time; a process that dies lets go.

        Raises:
            SemcError: ALREADY_RUNNING where another round loop holds it, DISK where the folder is not writable.
        """
        end = time.monotonic() + _LOCK_SECONDS
        try:
            stream = (self.root / "lock").open("w")
        except OSError as error:
            raise SemcError(
                ExitCode.DISK,
                f"The run folder cannot be written ({error.strerror}).",
                "make the coordinator's home writable and free space",
            ) from error
        with stream:
            while True:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:  # whoever only looks, see is_locked, holds it for a moment
                    if time.monotonic() > end:
                        raise SemcError(
                            ExitCode.ALREADY_RUNNING,
                            "This run's round loop runs already.",
                            "follow it with `semc-server resume`, or wait for its end",
                        ) from error
                time.sleep(0.05)
            yield

    @property
    def is_locked(self) -> bool:
        """Whether a round loop of this run is alive."""
        try:
            with (self.root / "lock").open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    @property
    def flower_run(self) -> str | None:
        """Flower's number of the run as it was submitted last, None before."""
        try:
            return (self.root / _FLOWER_RUN).read_text(encoding="ascii").strip() or None
        except (OSError, ValueError):
            return None

    def note_flower_run(self, run_id: str) -> None:
        """Remember Flower's number of the run.

        Raises:
            SemcError: DISK.
        """
        self._write(self.root / _FLOWER_RUN, run_id + "\n")

    def forget_flower_run(self) -> None:
        """Forget Flower's number: it is about to be another one.

        Raises:
            OSError: The folder is not writable.
        """
        (self.root / _FLOWER_RUN).unlink(missing_ok=True)

    def write_result(self, result: StudyResult) -> None:
        """Write the result, whole or not at all.

        Raises:
            SemcError: DISK.
        """
        self._write(self.result_file, result.model_dump_json(indent=1))

    @staticmethod
    def _write(path: Path, text: str) -> None:
        try:
            write_whole(path, text.encode())
        except OSError as error:
            raise SemcError(
                ExitCode.DISK,
                f"{path.name} of the run cannot be written ({error.strerror}).",
                "free space on the coordinator's disk, then `semc-server resume`",
            ) from error

    def study(self) -> StudyConfig:
        """Load the study of this run.

        Raises:
            SemcError: CONFIG_NOT_FOUND or CONFIG_INVALID.
        """
        return load_study(self.study_file)

    def registry(self) -> Registry:
        """Load the enrolment of this run's sites."""
        return Registry.load(self.root)

    def result(self) -> StudyResult:
        """Load the finished study.

        Raises:
            SemcError: CHECKPOINT_INVALID where there is none or it is damaged.
        """
        try:
            return StudyResult.model_validate_json(self.result_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SemcError(
                ExitCode.CHECKPOINT_INVALID,
                f"Run '{self.root.name}' has no readable result.",
                "wait for its end, or see its state with `semc-server status`",
            ) from error
