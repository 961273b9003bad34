"""Options that several commands of `semc-server` share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """How a command prints its result."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="text for people, json for scripts.")]
HomeOption = Annotated[
    Path, typer.Option("--home", envvar="SEMC_SERVER_HOME", help="Folder of keys, records and runs.")
]
DEFAULT_HOME = Path("coordinator")
