"""Options and small readers that several commands of `semc-sim` share."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from semc.exit_codes import ExitCode, SemcError

if TYPE_CHECKING:
    from semc.config import StudyConfig


class Format(StrEnum):
    """How a command prints its result."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="text for people, json for scripts.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder for everything this command writes.")]
StudyArgument = Annotated[str, typer.Argument(help="Study YAML, or the name of a packaged study.")]
SitesOption = Annotated[
    Path | None, typer.Option("--sites", help="Hospitals made by `semc-sim sites`; default: phantom ones.")
]
OverrideOption = Annotated[
    list[str] | None, typer.Option("--set", help="Study key=value, e.g. training.learning_rate=0.01.")
]
GpuOption = Annotated[float, typer.Option(min=0, help="Fraction of a GPU per virtual site.")]
RayOption = Annotated[
    str | None,
    typer.Option(
        help="host:port of a running Ray cluster, or 'auto'; default: one on this machine. All its machines must see "
        "the same folders and programs."
    ),
]

CohortOption = Annotated[
    str | None, typer.Option("--cohort", help="Layout of the folder, e.g. fpus23; default: recognised.")
]
TaskOption = Annotated[
    str | None, typer.Option("--task", help="What the labels tell: fpus23 orientation | view | plane, ...")
]
ViewSourceOption = Annotated[
    Literal["tag", "folder"], typer.Option(help="fpus23 views: by the frame's tag or the stream's name.")
]
SeverityOption = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="How far the phantom scanners differ, 0 to 1; default 0.4."),
]


def words(text: str | None, separator: str) -> list[str]:
    """Return the non-empty words of a list given as one argument."""
    return [word.strip() for word in text.split(separator) if word.strip()] if text else []


def assignment(pair: str) -> tuple[str, str]:
    """Return key and value of `key=value`.

    Raises:
        SemcError: USAGE.
    """
    key, equals, value = pair.partition("=")
    if not equals or not key:
        raise SemcError(ExitCode.USAGE, f"'{pair}' is not key=value.", "write it as key=value")
    return key.strip(), value.strip()


def study_of(reference: str, overrides: list[str] | None) -> StudyConfig:
    """Load a study with the overrides of `--set`; values are YAML."""
    from semc.config import load_study

    study = load_study(reference, overrides=dict(_override(pair) for pair in overrides or ()))
    for caution in study.cautions:
        typer.echo(f"note: {caution}", err=True)
    return study


def _override(pair: str) -> tuple[str, Any]:
    import yaml

    key, value = assignment(pair)
    return key, yaml.safe_load(value)


def print_rich(renderable: object) -> None:
    """Print a table or text for people."""
    from rich.console import Console

    Console().print(renderable)


def print_json(content: object) -> None:
    """Print for scripts."""
    typer.echo(json.dumps(content, indent=2))
