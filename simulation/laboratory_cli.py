"""`semc-sim compare` and `semc-sim loco`: the cross-centre experiments on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semc.exit_codes import ExitCode, SemcError
from simulation.options import (
    Format,
    FormatOption,
    GpuOption,
    OutOption,
    OverrideOption,
    RayOption,
    SitesOption,
    StudyArgument,
    print_json,
    study_of,
    words,
)

if TYPE_CHECKING:
    from semc.config import StudyConfig
    from simulation.compare import Laboratory

SeedsOption = Annotated[
    str, typer.Option(help="Training seeds, separated by commas; the images stay the same.")
]
AtOnceOption = Annotated[
    int,
    typer.Option(
        "--at-once",
        min=1,
        help="Trainings at the same time; they share this machine's cores and GPUs evenly.",
    ),
]
KeepOption = Annotated[bool, typer.Option("--keep-models", help="Keep weights and site states of every run.")]


def compare(
    study: StudyArgument,
    out: OutOption,
    arms: Annotated[
        str,
        typer.Option(
            help="Arms separated by commas: local, pooled, fedavg, fedprox, fedavgm, fedadam, silo, fedbn, each with "
            "variations joined by +, e.g. silo+logit-adjustment (`semc-sim arms` lists them). The first "
            "federated one is the one judged."
        ),
    ] = "local,pooled,fedavg,silo",
    against: Annotated[
        str | None,
        typer.Option(
            help="The arm of --arms that every other one is compared with, centre by centre, on the same patients and "
            "with intervals; default: local, where it is run. Nothing is trained anew for it."
        ),
    ] = None,
    seeds: SeedsOption = "0,1,2",
    sites: SitesOption = None,
    override: OverrideOption = None,
    cross_site: Annotated[
        bool, typer.Option(help="Score each site's model on all other sites' images too.")
    ] = True,
    at_once: AtOnceOption = 1,
    keep_models: KeepOption = False,
    gpus_per_site: GpuOption = 0.0,
    ray_address: RayOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Run arms x seeds of one study; writes results.csv, terms.csv, tables.md and report.html.

    Called again, it goes on where it was interrupted: finished trainings are read back, one that was cut off begins
    anew. Tables and report are of the arms and seeds of the last call.

    Example: semc-sim compare phantom_lab --arms pooled,pooled+resnet,pooled+no-ace --against pooled --out runs/compare
    """
    from simulation import compare as comparing

    laboratory = _laboratory(
        study, override, sites, out, seeds, at_once, gpus_per_site, ray_address, keep_models, output
    )
    report = comparing.compare(
        laboratory, words(arms, ","), cross_site=cross_site, against=(against or "").strip()
    )
    _tell(report, output)


def arms(output: FormatOption = Format.TEXT) -> None:
    """List the words that arms are made of, and the study settings each stands for.

    Example: semc-sim arms --format json
    """
    from simulation.arms import arm_words

    table = arm_words()
    if output is Format.JSON:
        print_json(table)
        return
    width = max(map(len, table))
    for word, settings in table.items():
        typer.echo(f"{word:<{width}}  {settings}")


def loco(
    study: StudyArgument,
    out: OutOption,
    arm: Annotated[str, typer.Option(help="The federated arm, as for compare.")] = "fedavg",
    seeds: SeedsOption = "0,1,2",
    centres: Annotated[
        str | None, typer.Option(help="Sites to leave out, separated by commas; default: each in turn.")
    ] = None,
    images: Annotated[
        str, typer.Option(help="Numbers of unlabelled images for the batch-norm statistics.")
    ] = "16,64,256",
    sites: SitesOption = None,
    override: OverrideOption = None,
    at_once: AtOnceOption = 1,
    keep_models: KeepOption = False,
    gpus_per_site: GpuOption = 0.0,
    ray_address: RayOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Leave each centre out in turn and let the federation of the others meet it, as it is and adapted.

    Example: semc-sim loco phantom_lab --arm fedavg --seeds 0,1,2 --out runs/loco
    """
    from simulation import loco as leaving

    laboratory = _laboratory(
        study, override, sites, out, seeds, at_once, gpus_per_site, ray_address, keep_models, output
    )
    numbers = _whole_numbers(images, "--images")
    _tell(leaving.loco(laboratory, arm, centres=words(centres, ","), images=numbers), output)


def _laboratory(
    study: str,
    override: list[str] | None,
    sites: Path | None,
    out: Path,
    seeds: str,
    at_once: int,
    gpus_per_site: float,
    ray_address: str | None,
    keep_models: bool,
    output: Format,
) -> Laboratory:
    from rich.console import Console

    from simulation.compare import Laboratory
    from simulation.run import Resources

    loaded = study_of(study, override)
    laboratory = Laboratory(
        study=loaded,
        sites=(out / "hospitals" if sites is None else sites).resolve(),
        out=out.resolve(),
        seeds=_whole_numbers(seeds, "--seeds"),
        resources=Resources.share(at_once, gpus_per_site=gpus_per_site, ray_address=ray_address),
        at_once=at_once,
        keep_models=keep_models,
        console=Console(stderr=True, quiet=output is Format.JSON),
    )
    if sites is None:
        _draw(loaded, laboratory.sites)
    return laboratory


def _draw(study: StudyConfig, sites: Path) -> None:
    """Draw the study's phantom hospitals, once for an output folder.

    Raises:
        SemcError: USAGE where the folder's were drawn for another study.
    """
    from simulation.make_sites import make_sites
    from simulation.study_run import phantom_request

    request = phantom_request(study)
    wanted = request.model_dump_json(indent=1)
    made_for = sites / "request.json"
    if not made_for.is_file():
        shutil.rmtree(sites, ignore_errors=True)  # what an interrupted call left
        make_sites(request, sites)
        made_for.write_text(wanted, encoding="utf-8")
    elif made_for.read_text(encoding="utf-8") != wanted:
        raise SemcError(
            ExitCode.USAGE,
            "The output folder's phantom hospitals were made for another study.",
            "give another --out, or --sites",
        )


def _whole_numbers(text: str, option: str) -> list[int]:
    found = words(text, ",")
    if not found or not all(word.isdecimal() for word in found):
        raise typer.BadParameter("give whole numbers separated by commas, e.g. 0,1,2", param_hint=option)
    numbers = [int(word) for word in found]
    if len(set(numbers)) != len(numbers):
        raise typer.BadParameter("give each number once", param_hint=option)
    return numbers


def _tell(report: Path, output: Format) -> None:
    """Print the tables, or where the files are."""
    from simulation.compare import CSV, MARKDOWN, TERMS
    from simulation.tasks import PREDICTIONS

    if output is Format.JSON:
        files = {
            "report": report,
            "csv": report.with_name(CSV),
            "terms": report.with_name(TERMS),
            "tables": report.with_name(MARKDOWN),
            "predictions": report.with_name(PREDICTIONS),
        }
        typer.echo(json.dumps({name: str(path) for name, path in files.items()}, indent=2))
        return
    typer.echo(report.with_name(MARKDOWN).read_text(encoding="utf-8"))
    typer.echo(f"report: {report}")
