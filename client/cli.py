"""semc-client: one hospital's command line.

Heavy imports (torch, flwr) wait until a command needs them, so that help is immediate.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.ledger_cli import ledger_app
from client.named_site import Format, SiteOption, site_file
from semc.exit_codes import one_line_errors

if TYPE_CHECKING:
    from semc.config import SiteConfig

app = typer.Typer(
    help="Take part in a federated study with this hospital's own images, which never leave it.",
    epilog="Example: semc-client --site /srv/semc/site.yaml",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


app.add_typer(ledger_app, name="ledger")


@app.callback()
def client(
    context: typer.Context,
    site: SiteOption = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.", show_default=False)
    ] = False,
) -> None:
    """Take part in a federated study with this hospital's own images, which never leave it."""
    del debug  # read in `main`, which also meets errors from before this function
    context.obj = site
    if context.invoked_subcommand is None:
        join(context)


@app.command()
def join(
    context: typer.Context,
    site: SiteOption = None,
    wait: Annotated[
        float,
        typer.Option(
            min=0,
            help="Seconds to wait for a coordinator that does not answer, until it accepted this site once; then "
            "without limit.",
        ),
    ] = 90.0,
) -> None:
    """Take part until SIGTERM or Ctrl-C (the default command).

    Example: semc-client join --site north
    """
    from client import join as joining

    path, config = _site(context, site)
    joining.join(path, config, wait)


@app.command()
def check(
    context: typer.Context,
    site: SiteOption = None,
    study: Annotated[
        str | None, typer.Option(help="Study YAML or packaged study to check the data against.")
    ] = None,
    every_image: Annotated[
        bool, typer.Option("--every-image", help="Decode every image, not a sample of each split.")
    ] = False,
    output: Annotated[
        Format, typer.Option("--format", help="text for people, json for scripts.")
    ] = Format.TEXT,
) -> None:
    """Check configuration, data, key, disk, device and the way to the coordinator; changes nothing.

    Example: semc-client check --site north --format json
    """
    from client import doctor

    path = site_file(context, site)
    report = doctor.examine(path, study, every_image=every_image)
    if output is Format.JSON:
        typer.echo(report.to_json())
    else:
        report.print_table()
    raise typer.Exit(report.exit_code())


@app.command()
def adopt(
    context: typer.Context,
    weights: Annotated[Path, typer.Option(help="Checkpoint of the run: its folder, or a file in it.")],
    study: Annotated[str, typer.Option(help="study.yaml of the same run, or a packaged study.")],
    site: SiteOption = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of unlabelled images; left out: the site's training images."),
    ] = None,
    minimum: Annotated[
        int, typer.Option(min=64, help="Fewest images where the federation hands out no statistics.")
    ] = 64,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the model; left out: in the state directory.")
    ] = None,
    output: Annotated[
        Format, typer.Option("--format", help="text for people, json for scripts.")
    ] = Format.TEXT,
) -> None:
    """Fit a finished model to this hospital's scanner with unlabelled images; sends nothing.

    Example: semc-client adopt --site new --weights model --study model/study.yaml
    """
    from client.adopt import adopt as adopted

    found = adopted(site_file(context, site), study, weights, images=images, minimum=minimum, out=out)
    if output is Format.JSON:
        typer.echo(found.to_json())
    else:
        found.print_table()


@app.command("accept-data")
def accept_data(
    context: typer.Context,
    site: SiteOption = None,
    output: Annotated[
        Format, typer.Option("--format", help="text for people, json for scripts.")
    ] = Format.TEXT,
) -> None:
    """Say that the images as they are now are to be used, where they changed between two rounds.

    Example: semc-client accept-data --site north
    """
    from client.accepted_data import accept_data as accepted

    _, config = _site(context, site)
    found = accepted(config)
    typer.echo(found.to_json() if output is Format.JSON else found.text())


@app.command()
def keygen(context: typer.Context, site: SiteOption = None) -> None:
    """Make this site's key pair and print the half that is sent to the coordinator.

    Example: semc-client keygen --site north
    """
    from client.identity import create_identity, public_key_path

    _, config = _site(context, site)
    identity = create_identity(config.private_key, config.site)
    public = public_key_path(config.private_key)
    typer.echo(identity.public_key)
    typer.echo(f"fingerprint  {identity.fingerprint}")
    typer.echo(f"public file  {public}   (send this one; {config.private_key.name} stays here)")
    typer.echo(f"coordinator  semc-server enrol {config.site} --public-key {public.name} --images N")
    typer.echo(
        "             --images: how many train; studies with patient-level privacy do without, leave it out"
    )


def _site(context: typer.Context, site: str | None) -> tuple[Path, SiteConfig]:
    from semc.config import load_site

    path = site_file(context, site)
    return path, load_site(path)


def main() -> None:
    """Run the command line; bad input ends with one line and its numbered exit code."""
    with one_line_errors("semc-client"):
        app()
