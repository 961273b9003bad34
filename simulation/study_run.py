"""A whole simulated study: hospitals, federation, local-only arm where asked, result and report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Final

from rich.console import Console

from semc.config import StudyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.privacy.limits import check_plan
from semc.reporting.report import write_study_report
from semc.reporting.result import StudyResult
from server.events import EventReader
from server.progress import LiveProgress
from server.run_folder import RunFolder
from simulation.local_only import local_only
from simulation.make_sites import SitesRequest, make_sites
from simulation.run import Resources, SimulatedRun, prepare, run_simulation

_LOOK_SECONDS: Final = 0.2


def run_study(
    study: StudyConfig,
    out: Path,
    sites: Path | None = None,
    *,
    compare_local: bool = False,
    resources: Resources | None = None,
    console: Console | None = None,
) -> StudyResult:
    """Run a study in simulation and write result and report into `out`.

    Args:
        study: The resolved study.
        out: Folder of the run.
        sites: Hospitals made by `semc-sim sites`; by default phantom hospitals with the study's names and classes.
        compare_local: Also train each hospital alone with the same budget.
        resources: What one virtual site may use.
        console: Shows the rounds as they come; None: nothing is shown.

    Raises:
        SemcError: Whatever preparation or the run itself refuses.
    """
    SimulatedRun(study, out).require_fresh()
    if compare_local and study.privacy.private:
        raise SemcError(
            ExitCode.USAGE,
            "A hospital that trains alone sends nothing, so it needs no privacy: that arm is another study.",
            "leave out --compare-local, or compare with a study of mode none",
        )
    check_plan(study)  # before hospitals are drawn for nothing
    if sites is None:
        sites = out / "hospitals"
        make_sites(phantom_request(study), sites)
    run = prepare(study, sites, out)
    with following(RunFolder(run.server_folder).events_file, console):
        result = run_simulation(run, resources)
    if compare_local:
        files = {name: run.site_file(name) for name in study.federation.sites}
        result = result.with_local_only(local_only(study, files, out / "local_only"))
    write_study_report(result, out)
    return result


@contextmanager
def following(events_file: Path, console: Console | None) -> Iterator[None]:
    """Show a run's events while the block runs it in this process."""
    if console is None:
        yield
        return
    reader, ended = EventReader(events_file), Event()

    def show(progress: LiveProgress) -> None:
        while not ended.wait(_LOOK_SECONDS):
            for event in reader.new():
                progress.show(event)
        for event in reader.new():
            progress.show(event)

    with LiveProgress(console) as progress:
        watcher = Thread(target=show, args=(progress,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


def phantom_request(study: StudyConfig) -> SitesRequest:
    """Return phantom hospitals that fit a study: its site names, classes, image size and seed.

    Few patients each, so that other hospitals' patients help; test patients enough for a figure. With patient-level
    privacy as many as the study asks for, and test patients enough for the small-cell rules.
    """
    private = study.privacy.private
    return SitesRequest(
        source="phantom",
        partition="by_centre",
        num_sites=len(study.federation.sites),
        site_names=study.federation.sites,
        classes=study.data.classes,
        image_size=study.data.image_size,
        patients_per_site=study.privacy.min_patients if private else 14,
        test_patients_per_site=60 if private else 24,
        validation_fraction=0.0 if private else 0.15,
        frames_per_patient=3,
        class_prior=None,
        seed=study.seed,
    )
