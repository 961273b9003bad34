"""semc-server: the coordinating centre's command line.

Heavy imports (torch, flwr) wait until a command needs them, so that help is immediate.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semc.exit_codes import ExitCode, one_line_errors
from server.options import DEFAULT_HOME, Format, FormatOption, HomeOption
from server.run_cli import run_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.home import Endpoint

app = typer.Typer(
    help="Coordinate federated studies: `up` once, `enrol` each hospital, `run` a study, read the `report`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(run_app)  # its commands are commands of this program


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


def _images(number: int | None) -> str:
    """Return a site's number of images as it is shown behind other words; nothing where it did not say."""
    return "" if number is None else f", {number} images"


def main() -> None:
    """Run the command line; bad input ends with one line and its numbered exit code."""
    with one_line_errors("semc-server"):
        app()


if __name__ == "__main__":
    main()
