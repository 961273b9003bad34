"""A standing federation of real processes that outlives what is done to it, and the studies that run in it.

Started with the programs that hospitals and coordinators run. The only difference to a deployment is a plan file in
the environment, by which a process can be stopped at a chosen call (tests/faults/injected).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import psutil
import yaml

from semc.config import StudyConfig, parse_study
from semc.exit_codes import SemcError
from server.health import Health, ask_health
from server.home import Home
from simulation.make_sites import SitesRequest, make_sites
from simulation.rehearsal import Rehearsal
from simulation.site_folder import SITE_FILE
from tests.faults.injected.sitecustomize import PLAN_VARIABLE
from tests.faults.plan import INJECTED, Plan
from tests.faults.study_run import StudyRun

MARK = "SEMC_FAULTS_FEDERATION"
"""Environment variable by which every process of a federation is known, whatever became of its parent."""
CLASSES = ("head", "abdomen", "femur")


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: It did not in this time.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain: {what}"
        time.sleep(0.05)


def make_hospitals(folder: Path, names: Sequence[str], **site_settings: object) -> dict[str, Path]:
    """Draw phantom hospitals and return their site files."""
    request = SitesRequest(
        partition="by_centre",
        num_sites=len(names),
        site_names=tuple(names),
        classes=CLASSES,
        patients_per_site=6,
        test_patients_per_site=3,
        frames_per_patient=2,
        image_size=32,
        seed=1,
    )
    make_sites(request, folder)
    files = {name: folder / name / SITE_FILE for name in names}
    for file in files.values():
        content = yaml.safe_load(file.read_text(encoding="utf-8")) | site_settings
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return files


class Federation:
    """One coordinator and its hospitals; a context manager.

    Args:
        folder: For everything.
        site_files: Site name to site file.
    """

    def __init__(self, folder: Path, site_files: dict[str, Path]) -> None:
        self.folder, self.site_files = folder, site_files
        self.plan = Plan(folder / "plan")
        path = os.pathsep.join(filter(None, (str(INJECTED), os.environ.get("PYTHONPATH", ""))))
        self.environment = {"PYTHONPATH": path, PLAN_VARIABLE: str(self.plan.file), MARK: str(folder)}
        images = dict.fromkeys(site_files, 12)
        # Idle processes that asked ten times a second would take a third of a small machine.
        self.rehearsal = Rehearsal(folder, site_files, images, poll_seconds=0.5, environment=self.environment)
        self.home = Home(self.rehearsal.home)
        self._references: dict[str, StudyRun] = {}

    def __enter__(self) -> Federation:
        self.rehearsal.__enter__()
        return self

    def __exit__(self, *_error: object) -> None:
        self.plan.release()
        self.rehearsal.stop()
        self._kill(self.processes())

    @property
    def names(self) -> tuple[str, ...]:
        """The hospitals."""
        return tuple(self.site_files)

    def reference(self, study: StudyConfig) -> StudyRun:
        """Return the uninterrupted run of a study in this federation; run once."""
        digest = study.digest()
        if digest not in self._references:
            run = self.start(study)
            run.wait()
            run.assert_whole()
            self._references[digest] = run
        return self._references[digest]

    def start(self, study: StudyConfig) -> StudyRun:
        """Start a study at sites that remember nothing of it, and return what follows it."""
        self.forget(study)
        return StudyRun(self.home, study, self.folder / "followers", {**os.environ, **self.environment})

    def forget(self, study: StudyConfig) -> None:
        """Remove what the sites kept of earlier runs of a study: a kept reply would be sent again untrained."""
        for file in self.site_files.values():
            shutil.rmtree(file.parent / "state" / study.digest()[:16], ignore_errors=True)

    def processes(self) -> list[psutil.Process]:
        """Return every living process of this federation, found by its environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and process.environ().get(MARK) == str(self.folder) and process.pid != os.getpid():
                    found.append(process)
        return found

    def find(self, words: Iterable[str], site: str = "") -> psutil.Process | None:
        """Return the process whose command line holds these words and, where given, the site's folder."""
        place = str(self.site_files[site].parent) if site else ""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if set(words) <= set(line) and place in " ".join(line):
                    return process
        return None

    def orphans(self) -> list[str]:
        """Return the command lines of processes whose parent is none of this federation's, nor this one."""
        processes = self.processes()
        parents = {process.pid for process in processes} | {os.getpid()}
        lost = []
        for process in processes:
            with contextlib.suppress(psutil.Error):
                if process.ppid() not in parents:
                    lost.append(" ".join(process.cmdline()))
        return lost

    def serves(self) -> bool:
        """Whether the coordinator answers."""
        return ask_health(self.home.endpoint().health_address) is Health.SERVING

    def kill_everything(self) -> None:
        """Kill -9 every process of this federation at once."""
        self._kill(self.processes())
        for name in ("coordinator", *self.names):
            self.rehearsal.kill(name)  # collects what is left of it

    def start_what_ended(self) -> None:
        """Start again, as systemd would, whatever of coordinator and clients runs no more."""
        for name in ("coordinator", *self.names):
            while self.rehearsal.has_ended(name):
                try:
                    self.rehearsal.start_again(name)
                except SemcError:  # a dying child may still hold a port for a moment
                    time.sleep(1)

    def _kill(self, processes: Iterable[psutil.Process]) -> None:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                os.kill(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def running_federation(folder: Path, names: Sequence[str], **site_settings: object) -> Iterator[Federation]:
    """Draw hospitals, start everything, and end it."""
    with Federation(folder, make_hospitals(folder / "hospitals", names, **site_settings)) as federation:
        yield federation


def small_study(names: Sequence[str], **overrides: object) -> StudyConfig:
    """Return a study whose rounds take about a second."""
    text = f"""
name: faults
seed: 3
data: {{classes: [{", ".join(CLASSES)}], image_size: 32}}
model: {{backbone: tiny, samc_expansion: 1, embedding_dim: 16}}
objective: {{queue_size: 16}}
training: {{batch_size: 4, local_steps: 16, learning_rate: 0.02}}
federation:
  {{sites: [{", ".join(names)}], rounds: 3, deadline_seconds: 300, join_timeout_seconds: 240}}
"""
    return parse_study(text, {key.replace("__", "."): value for key, value in overrides.items()})
