"""The commands of `semc-server` about runs: start, go on, prove, report, hand out.

Heavy imports (torch, flwr) wait until a command needs them, so that help is immediate.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from semc.exit_codes import ExitCode, SemcError
from server.options import DEFAULT_HOME, Format, FormatOption, HomeOption

if TYPE_CHECKING:
    from server.events import EventReader
    from server.home import Home
    from server.run_folder import RunFolder

run_app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)


@run_app.command()
def run(
    study: Annotated[str, typer.Argument(help="Study YAML, or the name of a packaged study.")],
    home: HomeOption = DEFAULT_HOME,
    output: FormatOption = Format.TEXT,
) -> None:
    """Run a study across its enrolled hospitals and follow it to its end.

    The exit code says how it ended: 0 complete, 51 complete on a subset, 50 quorum lost, 52 failed.

    Example: semc-server run study.yaml --home coordinator
    """
    from semc.config import load_study
    from server.events import EventReader
    from server.home import Home
    from server.submit import submit

    place = Home(home)
    loaded = load_study(study)
    for caution in loaded.cautions:
        typer.echo(f"note: {caution}", err=True)
    folder = submit(place, loaded)
    _follow_to_end(place, folder, EventReader(folder.events_file), output)


@run_app.command()
def resume(
    run_name: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="A run; default: the latest that has not finished."),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    output: FormatOption = Format.TEXT,
) -> None:
    """Go on with a run that was interrupted or stopped, from where it stood, and follow it to its end.

    Replies that had arrived are used; the model ends bit for bit as without the interruption. A run that is running is
    only followed. The exit code says how it ended, as for `run`.

    Example: semc-server resume --home coordinator
    """
    from server.events import EventReader
    from server.find_run import unfinished_run
    from server.home import Home
    from server.submit import resubmit

    place = Home(home)
    folder = unfinished_run(place, run_name)
    events = EventReader(folder.events_file, from_now=True)
    try:
        resubmit(place, folder)
    except SemcError as error:
        if error.code is not ExitCode.ALREADY_RUNNING:
            raise
    typer.echo(f"going on with run {folder.root.name}", err=True)
    _follow_to_end(place, folder, events, output)


def _follow_to_end(place: Home, folder: RunFolder, events: EventReader, output: Format) -> NoReturn:
    """Show a run's progress and its result; ends the program with the number that says how it ended."""
    from rich.console import Console

    from server.follow import follow
    from server.progress import LiveProgress

    try:
        with LiveProgress(Console(stderr=True, quiet=output is Format.JSON)) as progress:
            result = follow(place, folder, events, progress.show)
    except KeyboardInterrupt:
        typer.echo(f"run {folder.root.name} goes on at the coordinator; see `semc-server status`", err=True)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if output is Format.JSON:
        typer.echo(result.model_dump_json(indent=2))
    else:
        from semc.reporting.tables import site_table

        Console().print(site_table(result))
        typer.echo(f"{result.outcome.replace('_', ' ')}; run {folder.root.name}")
    raise typer.Exit(int(result.exit_code()))


@run_app.command()
def verify(
    run_name: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run; default: the latest.")
    ] = None,
    public_key: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|TEXT",
            help="Key to check with, as another coordinator gave it; default: this home's.",
        ),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    output: FormatOption = Format.TEXT,
) -> None:
    """Check that the record of who took part in a run is the one that its coordinator signed.

    The exit code is 31 where something was changed, else that of the run: 0 complete or not yet finished, 51 complete
    on a subset, 50 quorum lost, 52 failed.

    Example: semc-server verify --home coordinator --format json
    """
    from server.find_run import find_run
    from server.home import Home
    from server.verify import verify_run

    place = Home(home)
    verified = verify_run(place, find_run(place, run_name), public_key)
    if output is Format.JSON:
        typer.echo(json.dumps(verified.to_json(), indent=2))
    else:
        typer.echo("\n".join(verified.lines()))
    raise typer.Exit(int(verified.exit_code()))


@run_app.command()
def report(
    run_name: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run; default: the latest.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The HTML file to write.")] = Path("report.html"),
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Write a finished run's report as one HTML page.

    Example: semc-server report --out report.html
    """
    from server.find_run import find_run, write_report
    from server.home import Home

    folder = find_run(Home(home), run_name)
    typer.echo(f"report: {write_report(folder, out)}")
    _tell_outcome(folder)


@run_app.command()
def export(
    out: Annotated[Path, typer.Option("--out", help="New folder for weights and study.")],
    run_name: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run; default: the latest.")
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="The round that was best on validation images, not the last.")
    ] = False,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Write a run's model for others to use: shared weights and study.yaml, nothing about who took part.

    Example: semc-server export --out model; elsewhere: semc-client adopt --weights model --study model/study.yaml
    """
    from server.export import export_model
    from server.find_run import find_run
    from server.home import Home

    folder = find_run(Home(home), run_name)
    number = export_model(folder, out, best=best)
    typer.echo(f"model of round {number}: {out}")
    _tell_outcome(folder)


def _tell_outcome(folder: RunFolder) -> None:
    """Say on standard error how a run ended, so that what is made from half a study is not taken for a whole one."""
    from server.run_outcome import outcome_in_words

    typer.echo(f"run {folder.root.name}: {outcome_in_words(folder)}", err=True)
