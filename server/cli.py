"""semc-server: the coordinating centre's command line.

Heavy imports (torch, flwr) wait until a command needs them, so that help is immediate.
"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from semc.exit_codes import ExitCode, one_line_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.events import EventReader
    from server.home import Endpoint, Home
    from server.run_folder import RunFolder

app = typer.Typer(
    help="Coordinate federated studies: `up` once, `enrol` each hospital, `run` a study, read the `report`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Format(StrEnum):
    """How a command prints its result."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="text for people, json for scripts.")]
HomeOption = Annotated[
    Path, typer.Option("--home", envvar="SEMC_SERVER_HOME", help="Folder of keys, records and runs.")
]
DEFAULT_HOME = Path("coordinator")


@app.callback()
def settings(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command."""
    context.obj = debug


@app.command()
def up(
    home: HomeOption = DEFAULT_HOME,
    address: Annotated[
        str, typer.Option(help="host:port to listen on: 127.0.0.1 for this machine, 0.0.0.0 for the sites.")
    ] = "127.0.0.1:8000",
    san: Annotated[
        list[str] | None, typer.Option(help="Host name or IP under which sites dial; may be repeated.")
    ] = None,
    health_address: Annotated[
        str | None, typer.Option(help="host:port of the gRPC health service; default: the next port.")
    ] = None,
    resume_runs: Annotated[
        bool,
        typer.Option("--resume", help="Go on with runs that were interrupted, for example by a reboot."),
    ] = False,
) -> None:
    """Run the coordinator until it is stopped; the first time it makes CA, certificate and secret.

    A round loop that dies while the coordinator runs is always brought back.

    Example: semc-server up --home coordinator --address 0.0.0.0:8000 --san coordinator.hospital.example
    """
    from server.home import Home
    from server.listen import Listen
    from server.supervisor import Supervisor
    from server.tls import fingerprint, loopback_only

    place = Home(home)

    def ready(endpoint: Endpoint, interrupted: Sequence[str]) -> None:
        typer.echo(f"ready: {endpoint.address} (health {endpoint.health_address})")
        typer.echo(f"give every site this certificate: {place.ca_certificate}")
        typer.echo(
            f"its SHA-256 fingerprint, to be compared by telephone: {fingerprint(place.ca_certificate)}"
        )
        if loopback_only(place.server_certificate) and not endpoint.address.startswith("127."):
            typer.echo("note: the certificate names this machine only; give --san HOST for sites elsewhere")
        for name in interrupted:
            typer.echo(f"interrupted: {name}; go on with `semc-server resume {name}`")
        sys.stdout.flush()

    Supervisor(place, Listen.parse(address, health_address), san or [], resume=resume_runs).run(ready)


@app.command()
def enrol(
    site: Annotated[str, typer.Argument(help="The name in the site's own file.")],
    public_key: Annotated[Path, typer.Option(help="Public key made by `semc-client keygen`.")],
    images: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Training images agreed with the site; weighs its updates. Not needed where all sites weigh alike, as "
            "in every study with patient-level privacy.",
        ),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    output: FormatOption = Format.TEXT,
) -> None:
    """Register a hospital's key with the running coordinator; repeat to change its number of images.

    Example: semc-server enrol north --public-key north.pub --images 412
    """
    from server.enrolment import enrol as enrol_site
    from server.home import Home

    enrolment = enrol_site(Home(home), site, public_key, images)
    if output is Format.JSON:
        typer.echo(json.dumps({"site": site, "node_id": enrolment.node_id, "images": enrolment.num_examples}))
    else:
        typer.echo(f"enrolled {site}: node {enrolment.node_id}{_images(enrolment.num_examples)}")


@app.command()
def revoke(
    site: Annotated[str, typer.Argument(help="Name of an enrolled site.")], home: HomeOption = DEFAULT_HOME
) -> None:
    """Take a hospital's key away; it is turned away from its next request on.

    Example: semc-server revoke north
    """
    from server.enrolment import revoke as revoke_site
    from server.home import Home

    revoke_site(Home(home), site)
    typer.echo(f"revoked {site}")


@app.command("new-ledger")
def new_ledger(
    site: Annotated[str, typer.Argument(help="Name of an enrolled site.")], home: HomeOption = DEFAULT_HOME
) -> None:
    """Accept that a hospital made a new privacy ledger on purpose, for example after its disk was lost.

    Without it the hospital refuses: the coordinator still knows entries of the old one. What that one had spent is then
    forgotten, so let the hospital's data-protection officer say that it is meant.

    Example: semc-server new-ledger north --home coordinator
    """
    from server.home import Home
    from server.ledger_heads import LedgerHeads
    from server.registry import Registry

    place = Home(home)
    Registry.load(place.root).restricted_to((site,))
    LedgerHeads(place.ledger_heads).begin_anew(site)
    typer.echo(f"the ledger of {site} begins anew")


@app.command()
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


@app.command()
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
    from server.home import Home
    from server.run_state import RunState, run_state
    from server.submit import resubmit, unfinished_run

    place = Home(home)
    folder = unfinished_run(place, run_name)
    events = EventReader(folder.events_file, from_now=True)
    if run_state(folder) not in (RunState.RUNNING, RunState.WAITING):
        resubmit(place, folder)
    typer.echo(f"going on with run {folder.root.name}", err=True)
    _follow_to_end(place, folder, events, output)


def _follow_to_end(place: Home, folder: RunFolder, events: EventReader, output: Format) -> NoReturn:
    """Show a run's progress and its result; ends the program with the number that says how it ended."""
    from rich.console import Console

    from server.progress import LiveProgress
    from server.submit import follow

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


@app.command()
def status(home: HomeOption = DEFAULT_HOME, output: FormatOption = Format.TEXT) -> None:
    """Show whether the coordinator serves, which hospitals are online, and what ran.

    Example: semc-server status --format json
    """
    from server.health import Health
    from server.home import Home
    from server.status import read_status

    state = read_status(Home(home))
    if output is Format.JSON:
        typer.echo(json.dumps(state.to_json(), indent=2))
    else:
        typer.echo(f"coordinator {state.address}: {state.health}")
        typer.echo(f"certificate: {state.certificate_days_left:.0f} days left")
        for entry in state.sites:
            typer.echo(f"site {entry.site}: {entry.state}{_images(entry.num_examples)}")
        for made in state.runs:
            privacy = f"; {made.privacy}" if made.privacy else ""
            typer.echo(f"run {made.run}: {made.outcome.replace('_', ' ')}{privacy}")
    if state.health is not Health.SERVING:
        raise typer.Exit(int(ExitCode.SERVER_UNREACHABLE))


@app.command()
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
    from server.home import Home
    from server.submit import find_run
    from server.verify import verify_run

    place = Home(home)
    verified = verify_run(place, find_run(place, run_name), public_key)
    if output is Format.JSON:
        typer.echo(json.dumps(verified.to_json(), indent=2))
    else:
        typer.echo("\n".join(verified.lines()))
    raise typer.Exit(int(verified.exit_code()))


@app.command()
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
    from server.home import Home
    from server.submit import find_run, write_report

    folder = find_run(Home(home), run_name)
    typer.echo(f"report: {write_report(folder, out)}")
    _tell_outcome(folder)


@app.command()
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
    from server.home import Home
    from server.submit import find_run

    folder = find_run(Home(home), run_name)
    number = export_model(folder, out, best=best)
    typer.echo(f"model of round {number}: {out}")
    _tell_outcome(folder)


def _tell_outcome(folder: RunFolder) -> None:
    """Say on standard error how a run ended, so that what is made from half a study is not taken for a whole one."""
    from server.run_outcome import outcome_in_words

    typer.echo(f"run {folder.root.name}: {outcome_in_words(folder)}", err=True)


def _images(number: int | None) -> str:
    """Return a site's number of images as it is shown behind other words; nothing where it did not say."""
    return "" if number is None else f", {number} images"


def main() -> None:
    """Run the command line; bad input ends with one line and its numbered exit code."""
    with one_line_errors("semc-server"):
        app()


if __name__ == "__main__":
    main()
