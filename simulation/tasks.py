"""Resumable pieces of a laboratory: what is finished is read back, what is not is trained in a process of its own.

A task owns a folder. It is finished once `finished.json` stands there with the task's digest; a folder without it is
what an interruption left, and is removed. Weights and site states, which can be gigabytes, go once the answers are
recorded, unless they are to be kept.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

import semc
from semc.config import StudyConfig
from semc.exit_codes import SemcError
from semc.reporting.predictions import read_predictions, write_predictions
from simulation.arm_run import ArmRun
from simulation.site_folder import IMAGES, MANIFEST, SITE_FILE

PREDICTIONS = "predictions.parquet"
_FINISHED = "finished.json"
_WORK = "work"


class _Finished(BaseModel):
    """What stands in `finished.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    seconds: float
    curves: dict[str, list[tuple[int, float]]] = {}
    terms: dict[str, dict[str, list[tuple[int, float]]]] = {}


@dataclass(frozen=True)
class Task:
    """One arm, or one left-out centre, with one seed.

    Attributes:
        name: For people.
        folder: Its own folder.
        study: The study trained, for its digest and classes.
        data_digest: Of the sites; other images are another task.
        train: Trains into the folder it is given and returns the answers; picklable.
        scored: What is scored besides, where that is a choice.
    """

    name: str
    folder: Path
    study: StudyConfig
    data_digest: str
    train: Callable[[Path], ArmRun]
    scored: str = ""

    @property
    def digest(self) -> str:
        """Return what the task's result depends on."""
        parts = (self.name, self.study.digest(), self.data_digest, self.scored, semc.__version__)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def finished(self) -> ArmRun | None:
        """Return what an earlier run left, or None where the task is still to be done."""
        try:
            found = _Finished.model_validate_json((self.folder / _FINISHED).read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return None
        if found.digest != self.digest:
            return None
        try:
            predictions, _ = read_predictions(self.folder / PREDICTIONS)
        except SemcError:  # missing or damaged: trained again
            return None
        return ArmRun(predictions, found.curves, found.seconds, found.terms)

    def record(self, run: ArmRun) -> None:
        """Write what training left; the task is finished afterwards."""
        write_predictions(self.folder / PREDICTIONS, run.predictions, self.study.data.classes)
        content = _Finished(digest=self.digest, seconds=run.seconds, curves=run.curves, terms=run.terms)
        part = self.folder / f".{_FINISHED}.part"
        part.write_text(content.model_dump_json(indent=1), encoding="utf-8")
        part.replace(self.folder / _FINISHED)


def data_digest(sites: Path, names: Iterable[str]) -> str:
    """Return the SHA-256 of everything the named sites train and are scored on: site files, manifests, images."""
    digest = hashlib.sha256()
    for name in sorted(names):
        folder = sites / name
        images = sorted(path for path in (folder / IMAGES).rglob("*") if path.is_file())
        for file in (folder / SITE_FILE, folder / MANIFEST, *images):
            digest.update(file.relative_to(sites).as_posix().encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def run_tasks(
    tasks: Sequence[Task], console: Console, *, at_once: int = 1, keep_models: bool = False
) -> list[ArmRun]:
    """Return every task's result, training those that are not finished.

    Args:
        tasks: In the order to be run.
        console: Shows progress and the time left.
        at_once: How many train at the same time.
        keep_models: Leave weights and site states on the disk.

    Raises:
        SemcError: What a task refuses; no further one begins, those in training end first, and finished ones are
            kept for the next call.
    """
    found = [task.finished() for task in tasks]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    with (
        # what was read back would make the estimate of the time left too short
        Progress(*columns, console=console, speed_estimate_period=36_000) as progress,
        ThreadPoolExecutor(at_once) as pool,
    ):
        bar = progress.add_task("", total=found.count(None))

        def train(task: Task) -> ArmRun:
            progress.update(bar, description=task.name)
            run = _train(task, keep_models=keep_models)
            progress.console.print(f"{task.name}: {run.seconds:.0f} s", highlight=False)
            progress.advance(bar)
            return run

        missing = [task for task, run in zip(tasks, found, strict=True) if run is None]
        futures = [pool.submit(train, task) for task in missing]
        try:
            ended, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        trained = iter(
            [future.result() for future in futures if future in ended]
        )  # raises what ended the wait
        return [next(trained) if run is None else run for run in found]


def _train(task: Task, *, keep_models: bool) -> ArmRun:
    """Train one task from the beginning in a fresh process, so that nothing of one arm is left to the next."""
    shutil.rmtree(task.folder, ignore_errors=True)
    task.folder.mkdir(parents=True)
    (task.folder / "study.yaml").write_text(task.study.to_yaml(), encoding="utf-8")  # to run it alone
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        run = pool.submit(task.train, task.folder / _WORK).result()
    task.record(run)
    if not keep_models:
        shutil.rmtree(task.folder / _WORK, ignore_errors=True)
    return run
