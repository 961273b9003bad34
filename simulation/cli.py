"""semc-sim: build hospitals from a data set, run a study across them on one machine, describe a model.

Heavy imports (torch, flwr, ray) wait until a command needs them, so that help is immediate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semc.exit_codes import one_line_errors
from simulation.cohort_cli import inspect, phantom, sites
from simulation.laboratory_cli import arms, compare, loco
from simulation.options import (
    Format,
    FormatOption,
    GpuOption,
    OutOption,
    OverrideOption,
    RayOption,
    SitesOption,
    StudyArgument,
    print_rich,
    study_of,
)
from simulation.utility_cli import utility

app = typer.Typer(
    help="Split a data set into hospitals and run federated studies across them on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def settings(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command."""
    del debug  # read in `main`, which also meets errors from before this function


app.command()(sites)
app.command()(phantom)
app.command()(inspect)
app.command()(utility)


@app.command()
def run(
    study: StudyArgument,
    out: OutOption,
    sites_folder: SitesOption = None,
    override: OverrideOption = None,
    compare_local: Annotated[
        bool,
        typer.Option(
            "--compare-local/--no-compare-local", help="Also train each hospital alone, for comparison."
        ),
    ] = False,
    gpus_per_site: GpuOption = 0.0,
    ray_address: RayOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Run a study on this machine with the same server and client apps that hospitals run; writes result.json.

    Example: semc-sim run phantom_smoke --out runs/smoke --format json
    """
    from rich.console import Console

    from simulation.run import Resources
    from simulation.study_run import run_study

    result = run_study(
        study_of(study, override),
        out,
        sites_folder,
        compare_local=compare_local,
        resources=Resources(gpus_per_site=gpus_per_site, ray_address=ray_address),
        console=None if output is Format.JSON else Console(stderr=True),
    )
    if output is Format.JSON:
        typer.echo(result.model_dump_json(indent=2))
    else:
        from semc.reporting.result import OUTCOMES
        from semc.reporting.tables import site_table

        print_rich(site_table(result))
        typer.echo(f"report: {out / 'report.html'}")
        typer.echo(OUTCOMES[result.outcome])
    raise typer.Exit(result.exit_code())


@app.command()
def describe(
    preset: Annotated[str, typer.Option(help="paper | reference | robust.")] = "robust",
    backbone: Annotated[
        str, typer.Option(help="tiny | small | resnet18 | resnet34 | resnet50.")
    ] = "resnet50",
    classes: Annotated[int, typer.Option(min=2, help="Number of classes.")] = 7,
    image_size: Annotated[int, typer.Option(min=32, help="Side of the input image, pixels.")] = 224,
    output: FormatOption = Format.TEXT,
) -> None:
    """Print parameters and MACs by module, batch norms, bytes per round, and what stays local.

    Example: semc-sim describe --preset reference --backbone resnet50 --classes 7 --format json
    """
    from simulation.describe import describe_preset, describe_table

    description = describe_preset(preset, backbone, classes, image_size)
    if output is Format.JSON:
        typer.echo(description.model_dump_json(indent=2))
    else:
        print_rich(describe_table(description))


@app.command()
def demo(
    out: OutOption = Path("runs/demo"),
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of real images: an index or manifest, or a folder a class; default: phantom."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of data and training.")] = 0,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds; default: the demo study's.")] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Three hospitals and a coordinator as real processes on loopback, with TLS and keys; ends with a comparison.

    Example: semc-sim demo --out runs/demo --seed 1
    """
    from simulation.demo import run_demo

    result = run_demo(out, data, seed, rounds, quiet=output is Format.JSON)
    if output is Format.JSON:
        typer.echo(result.model_dump_json(indent=2))
    raise typer.Exit(result.exit_code())


app.command()(arms)
app.command()(compare)
app.command()(loco)


def main() -> None:
    """Run the command line; bad input ends with one line and its numbered exit code."""
    with one_line_errors("semc-sim"):
        app()
