"""Which hospital a command means: `--site` before or after the command's name."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from semc.exit_codes import ExitCode, SemcError

SITE_FILE = "site.yaml"
SITES_FOLDER = "sites"


class Format(StrEnum):
    """How a command prints its result."""

    TEXT = "text"
    JSON = "json"


SiteOption = Annotated[
    str | None, typer.Option(help="site.yaml, its folder, or the name of a folder in ./sites.")
]
"""May stand before or after the command's name."""


def site_named(context: typer.Context, site: str | None) -> str | None:
    """Return what --site says, wherever it stands; None where it is left out."""
    found: str | None = site or context.obj
    return found


def site_file(context: typer.Context, site: str | None) -> Path:
    """Find the site file that --site means.

    Raises:
        SemcError: USAGE where --site is missing, CONFIG_NOT_FOUND where it leads nowhere.
    """
    named = site_named(context, site)
    if named is None:
        raise SemcError(ExitCode.USAGE, "No site is named.", "semc-client --site SITE.YAML (or its folder)")
    given = Path(named)
    for path in (given, given / SITE_FILE, Path(SITES_FOLDER) / given / SITE_FILE):
        if path.is_file():
            return path.resolve()
    raise SemcError(
        ExitCode.CONFIG_NOT_FOUND,
        "There is no site file where --site points.",
        "give the path of site.yaml, its folder, or the name of a folder in ./sites",
    )
