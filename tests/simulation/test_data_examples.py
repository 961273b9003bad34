"""What the data commands print of themselves: examples that run as they stand, and every layout."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from semc.datasets.phantom.layouts import LAYOUTS
from simulation.cli import app
from simulation.cohort_cli import inspect, phantom


def example_of(command: object) -> list[list[str]]:
    """Return the words of each program call in a command's example."""
    text = " ".join((command.__doc__ or "").partition("Example: ")[2].split())
    calls = [call.split() for call in text.split(" && ")]
    assert all(words[0] == "semc-sim" for words in calls)
    return [words[1:] for words in calls]


def test_a_layout_written_becomes_hospitals_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CAMUS has no centres; without a partition the same call is refused."""
    monkeypatch.chdir(tmp_path)
    written, made = example_of(phantom)
    assert CliRunner().invoke(app, [*written, "--image-size", "32"]).exit_code == 0
    found = CliRunner().invoke(app, made)
    assert (found.exit_code, found.exception) == (0, None)
    assert (tmp_path / made[-1] / "sites.json").is_file()
    place = made.index("--partition")
    bare = CliRunner().invoke(app, [*made[:place], *made[place + 2 :][:-1], "elsewhere"])
    assert "no centres" in str(bare.exception)


def test_a_cohort_is_inspected_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (shown,) = example_of(inspect)
    write = ["phantom", "--write-as", "fpus23", "--out", shown[1], "--image-size", "32", "--frames", "2"]
    assert CliRunner().invoke(app, write).exit_code == 0
    found = CliRunner().invoke(app, shown)
    assert found.exit_code == 0
    assert "task view" in found.output


def test_phantom_names_every_layout() -> None:
    program = get_command(app)
    assert isinstance(program, click.Group)
    write_as = next(option for option in program.commands["phantom"].params if option.name == "write_as")
    assert isinstance(write_as, click.Option)
    named = (write_as.help or "").rstrip(".").split(" | ")
    assert sorted(named) == sorted(LAYOUTS)
