"""One run = one folder: everything the round loop reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from semc.config import StudyConfig, load_study
from semc.exit_codes import ExitCode, SemcError
from semc.reporting import StudyResult
from server.registry import Registry
from server.site_weights import site_weights

CHECKPOINT_PREFIX: Final = "round-"


@dataclass(frozen=True)
class RunFolder:
    """Places inside a run folder.

    ```
    study.yaml       the resolved study
    registry.json    enrolment of its sites when the run began
    events.jsonl     progress, one line per event
    checkpoints/     round-0001, ...: model, server optimiser, receipts
    spool/           replies of the round in hand
    trunk/           the pretrained trunk, in studies that begin with one
    result.json      written once, at the end
    semc-study/      the bundle handed to Flower (deployed runs only)
    ```
    """

    root: Path

    @property
    def study_file(self) -> Path:
        """The resolved study."""
        return self.root / "study.yaml"

    @property
    def events_file(self) -> Path:
        """Progress, one JSON line per event."""
        return self.root / "events.jsonl"

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
            self.study_file.write_text(study.to_yaml(), encoding="utf-8")
            enrolled.save(self.root)
        except OSError as error:
            raise SemcError(
                ExitCode.DISK,
                f"The run folder cannot be made ({error.strerror}).",
                "make the coordinator's home writable and free space",
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
