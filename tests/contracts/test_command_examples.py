"""Every command that help texts and pages show can be typed as it stands: its command, options and values exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from typer.main import get_command

import client.cli
import server.cli
import simulation.cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "RESULTS.md", "CONTRIBUTING.md", "SECURITY.md", "semc/datasets/README.md")
APPS = {"semc-client": client.cli.app, "semc-server": server.cli.app, "semc-sim": simulation.cli.app}


def programs() -> dict[str, click.Group]:
    """Return the three programs as they parse their words; nothing is carried out."""
    found: dict[str, click.Group] = {}
    for name, app in APPS.items():
        program = get_command(app)
        assert isinstance(program, click.Group)
        for command in commands_of(program):
            command.callback = None
        found[name] = program
    return found


def commands_of(group: click.Group) -> Iterator[click.Command]:
    """Yield a group, its commands and theirs."""
    yield group
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from commands_of(command)
        else:
            yield command


def type_in(line: str) -> None:
    """Parse one command line.

    Raises:
        click.UsageError: Where a word of it does not exist.
    """
    program, *words = shlex.split(line, comments=True)
    programs()[program].main(words, program, standalone_mode=False)


def examples_of_help() -> Iterator[str]:
    for name, program in programs().items():
        for command in commands_of(program):
            text = " ".join(f"{command.help} {command.epilog}".split())
            assert command is program or "Example: " in text, f"{name} {command.name} shows no example"
            example = text.partition("Example: ")[2].removesuffix(" None")
            yield from filter(None, re.split(r" && |; elsewhere: ", example))


def examples_of_pages() -> Iterator[str]:
    """Yield the lines of shell blocks, and whole commands in inline code; `semc-sim sites` alone is a name."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
            yield from (line for line in block.splitlines() if line.startswith("semc-"))
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        yield from (code for code in re.findall(r"`(semc-[^`]+)`", prose) if " --out " in code)


@pytest.mark.parametrize("line", [*examples_of_help(), *examples_of_pages()])
def test_an_example_can_be_typed(line: str) -> None:
    type_in(line)


@pytest.mark.parametrize(
    "line",
    [
        "semc-sim sites --form camus --out hospitals",
        "semc-sim places --out hospitals",
        "semc-sim sites",
        "semc-sim sites --sites many --out hospitals",
        "semc-client --sit north",
    ],
)
def test_what_does_not_exist_is_found(line: str) -> None:
    with pytest.raises(click.UsageError):
        type_in(line)


def test_pages_show_commands() -> None:
    lines = list(examples_of_pages())
    assert any(line.startswith("semc-sim sites --from phantom --names") for line in lines)
    assert len(lines) > 15
