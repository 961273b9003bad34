"""A whole simulated study: hospitals, federation, local-only arm where asked, result and report."""

from __future__ import annotations

from pathlib import Path

from semc.config import StudyConfig
from semc.reporting.report import write_study_report
from semc.reporting.result import StudyResult
from simulation.local_only import local_only
from simulation.make_sites import SitesRequest, make_sites
from simulation.run import Resources, SimulatedRun, prepare, run_simulation


def run_study(
    study: StudyConfig,
    out: Path,
    sites: Path | None = None,
    *,
    compare_local: bool = False,
    resources: Resources | None = None,
) -> StudyResult:
    """Run a study in simulation and write result and report into `out`.

    Args:
        study: The resolved study.
        out: Folder of the run.
        sites: Hospitals made by `semc-sim sites`; by default phantom hospitals with the study's names and classes.
        compare_local: Also train each hospital alone with the same budget.
        resources: What one virtual site may use.

    Raises:
        SemcError: Whatever preparation or the run itself refuses.
    """
    SimulatedRun(study, out).require_fresh()
    if sites is None:
        sites = out / "hospitals"
        make_sites(phantom_request(study), sites)
    run = prepare(study, sites, out)
    result = run_simulation(run, resources)
    if compare_local:
        files = {name: run.site_file(name) for name in study.federation.sites}
        result = result.with_local_only(local_only(study, files, out / "local_only"))
    write_study_report(result, out)
    return result


def phantom_request(study: StudyConfig) -> SitesRequest:
    """Return phantom hospitals that fit a study: its site names, classes, image size and seed.

    Few patients each, so that other hospitals' patients help; test patients enough for a figure.
    """
    return SitesRequest(
        source="phantom",
        partition="by_centre",
        num_sites=len(study.federation.sites),
        site_names=study.federation.sites,
        classes=study.data.classes,
        image_size=study.data.image_size,
        patients_per_site=14,
        test_patients_per_site=24,
        frames_per_patient=3,
        class_prior=None,
        seed=study.seed,
    )
