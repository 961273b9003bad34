"""semc-client ledger: what this hospital's patients have been charged, and what a study would cost them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from client.named_site import Format, SiteOption, site_file, site_named
from semc.exit_codes import ExitCode, SemcError

ledger_app = typer.Typer(
    help="Privacy budget: show what is spent, make or close the ledger, plan a study. "
    "Example: semc-client ledger show --site north",
    no_args_is_help=True,
    rich_markup_mode=None,
)

FormatOption = Annotated[Format, typer.Option("--format", help="text for people, json for scripts.")]


@ledger_app.command()
def show(context: typer.Context, site: SiteOption = None, output: FormatOption = Format.TEXT) -> None:
    """Show what is spent by study and in total, and the head to read to the coordinator by telephone.

    Example: semc-client ledger show --site north --format json
    """
    from client.ledger_view import view
    from semc.config import load_site

    found = view(load_site(site_file(context, site)))
    if output is Format.JSON:
        typer.echo(found.to_json())
    else:
        found.print_text()


@ledger_app.command()
def init(
    context: typer.Context,
    site: SiteOption = None,
    patients: Annotated[
        int | None,
        typer.Option(help="The policy's number of patients, typed once more; left out: asked for."),
    ] = None,
) -> None:
    """Make this hospital's ledger, once and for ever; prints what it promises.

    Example: semc-client ledger init --site north --patients 400
    """
    from client.ledger_making import init_command, make
    from semc.config import load_site

    config = load_site(site_file(context, site))
    if patients is None:
        if not sys.stdin.isatty():
            raise SemcError(ExitCode.USAGE, "--patients is missing.", init_command(config))
        patients = typer.prompt("Training patients, as the policy states them", type=int)
    for line in make(config, patients):
        typer.echo(line)


@ledger_app.command()
def close(
    context: typer.Context,
    reason: Annotated[str, typer.Option(help="Why, for whoever reads the ledger later.")],
    site: SiteOption = None,
) -> None:
    """Close the ledger for good: no study with patient-level privacy runs here any more.

    Example: semc-client ledger close --site north --reason "left the federation"
    """
    from client.privacy_gate import require_ledger
    from semc.config import load_site

    if not 1 <= len(reason.strip()) <= 200:
        raise SemcError(ExitCode.USAGE, "The reason must have 1 to 200 characters.", "shorten or give it")
    ledger = require_ledger(load_site(site_file(context, site)))
    ledger.close(reason.strip())
    head = ledger.head()
    typer.echo(f"The ledger is closed. Its last entry is number {head.seq}: {head.hash}")


@ledger_app.command()
def plan(
    context: typer.Context,
    site: SiteOption = None,
    patients: Annotated[
        int | None, typer.Option(min=2, help="Training patients; left out: the policy's, with --site.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames of a patient in a step; change no cost, only learning.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of the study.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Noisy steps of a round.")] = None,
    rate: Annotated[
        float | None, typer.Option(min=1e-6, max=1, help="Probability with which a patient enters a step.")
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(min=0.01, max=100, help="Find the noise for this epsilon.")
    ] = None,
    noise: Annotated[
        float | None, typer.Option(min=0.3, max=1000, help="Find epsilon for this noise multiplier.")
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option(min=1e-15, max=0.1, help="Left out: the policy's or study's, else 1e-5 or less."),
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Study YAML or packaged study that the numbers left out come from.")
    ] = None,
    chart: Annotated[
        Path | None, typer.Option(help="HTML file for a chart of epsilon against rounds; loads nothing.")
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Tell what a study would cost: noise, epsilon, what to expect of the model; opens no image.

    Example: semc-client ledger plan --patients 400 --rounds 20 --steps 10 --rate 0.1 --epsilon 4 --chart plan.html
    """
    from client.ledger_plan import plan_study
    from client.ledger_view import history_of
    from client.ledger_wish import Wish
    from semc.config import load_site, load_study

    wish = Wish(patients, frames, rounds, steps, rate, epsilon, noise, delta)
    config = load_site(site_file(context, site)) if site_named(context, site) is not None else None
    found = plan_study(
        wish,
        load_study(study) if study is not None else None,
        history_of(config) if config is not None else None,
    )
    if chart is not None:
        from client.ledger_chart import write_chart

        write_chart(found, chart)
    if output is Format.JSON:
        typer.echo(found.to_json())
    else:
        found.print_text()
    if chart is not None:
        typer.echo(f"chart        {chart}", err=output is Format.JSON)
