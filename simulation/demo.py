"""The demo: three hospitals, one coordinator, SEMC, and an honest table of what the federation gained.

Default data are three phantom hospitals with different scanners; `--data` takes a folder of real images. The study
runs through real processes (`simulation.rehearsal`); the local-only arm then gives each hospital the same number of
steps alone.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from rich.console import Console

from semc.config import StudyConfig, load_site, load_study
from semc.datasets import SiteData, build_site_data
from semc.exit_codes import ExitCode, SemcError
from semc.reporting.report import write_study_report
from semc.reporting.result import OUTCOMES, StudyResult
from semc.reporting.tables import site_table
from simulation.laboratory_data import sample_images
from simulation.local_only import local_only
from simulation.make_sites import SiteCounts, SitesRequest, make_sites
from simulation.rehearsal import Rehearsal, read_result
from simulation.site_folder import SITE_FILE
from simulation.study_run import phantom_request

_SEVERITY: Final = 0.3
"""Of the phantom's scanners, milder than elsewhere: the demo's five short rounds do not bridge more (DECISIONS.md)."""


def run_demo(
    out: Path, data: Path | None, seed: int, rounds: int | None, *, quiet: bool = False
) -> StudyResult:
    """Run the demo and write `result.json` and `report.html` into `out`.

    Args:
        out: Folder of the demo; an earlier demo's runs stay, each seed and data set in its own folder.
        data: Folder of real images, or None for the phantom.
        seed: Seed of data and training.
        rounds: Rounds, or None for the study's own.
        quiet: Print nothing (the caller prints JSON).

    Raises:
        SemcError: Whatever a step refuses; RUN_FAILED where the federation ends without a result.
    """
    console = Console(quiet=quiet)
    started = time.monotonic()
    if data is not None and not data.is_dir():
        raise SemcError(
            ExitCode.DATA_NOT_FOUND, "The folder of real images does not exist.", "correct the path"
        )
    folder = out / f"{data.name if data else 'phantom'}-seed{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    console.print(f"[bold]1/4[/] three hospitals in {folder}")
    study, counts = _hospitals(folder / "hospitals", data, seed, rounds)
    site_files = {name: folder / "hospitals" / name / SITE_FILE for name in study.federation.sites}
    study_file = folder / "study.yaml"
    study_file.write_text(study.to_yaml(), encoding="utf-8")

    console.print("[bold]2/4[/] coordinator and hospitals start on loopback: TLS, registered keys")
    images = {name: counts[name].num_train_images for name in site_files}
    with Rehearsal(folder, site_files, images) as rehearsal:
        console.print(f"[bold]3/4[/] federation: {study.federation.rounds} rounds")
        exit_code = rehearsal.run(study_file, quiet=quiet)
        if exit_code not in (ExitCode.OK, ExitCode.COMPLETE_ON_SUBSET):
            problem = "The federation did not finish."
            raise SemcError(ExitCode.of_process(exit_code), problem, f"read {folder.name}/logs")
        result = StudyResult.model_validate(read_result(rehearsal.home))

    console.print("[bold]4/4[/] each hospital alone, the same number of steps")
    result = result.with_local_only(local_only(study, site_files, folder / "local_only"))
    result = result.with_sample_images(
        {name: sample_images(_site_data(file, study)) for name, file in site_files.items()}
    )
    result = result.with_seconds(time.monotonic() - started)
    report = write_study_report(result, folder)
    console.print(site_table(result))
    console.print(f"{result.seconds:.0f} s in all; report: {report}")
    console.print(OUTCOMES[result.outcome])
    return result


def _hospitals(
    folder: Path, data: Path | None, seed: int, rounds: int | None
) -> tuple[StudyConfig, dict[str, SiteCounts]]:
    """Write the hospitals and return the demo's study with what data decides: classes, sites, image size."""
    overrides: dict[str, object] = {"seed": seed}
    if rounds is not None:
        overrides["federation.rounds"] = rounds
    if data is None:
        study = load_study("demo_phantom", overrides)
        request = phantom_request(study).model_copy(update={"severity": _SEVERITY})
        return study, make_sites(request, folder)
    counts = make_sites(demo_request(data, seed), folder)
    classes = sorted({name for count in counts.values() for name in count.class_counts})
    overrides |= {"data.classes": classes, "federation.sites": sorted(counts)}
    return load_study("demo_real", overrides), counts


def demo_request(data: Path, seed: int) -> SitesRequest:
    """Return how the demo splits a folder of real images: its own centres, or three random parts by patient."""
    # LP2025 folders hold no patient keys; the counts, and with them the report, then say "ungrouped"
    return SitesRequest(source=str(data), partition="auto", num_sites=3, allow_ungrouped=True, seed=seed)


def _site_data(site_file: Path, study: StudyConfig) -> SiteData:
    return build_site_data(load_site(site_file).data, study.data, study.training.batch_size)
