"""One row of `semc-client check`: passed, wrong with its fix, or a warning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from semc.exit_codes import ExitCode, SemcError

State = Literal["passed", "warning", "wrong", "skipped"]


@dataclass(frozen=True)
class Row:
    """What one check found."""

    name: str
    state: State
    found: str
    fix: str = ""
    """What to do about a warning or an error."""
    code: ExitCode = ExitCode.OK
    """The exit code this error has where it is met in earnest."""


def passed(name: str, found: str) -> Row:
    """Return a row that needs nobody's attention."""
    return Row(name, "passed", found)


def warning(name: str, found: str, fix: str) -> Row:
    """Return a row that will need attention, but not today."""
    return Row(name, "warning", found, fix)


def skipped(name: str, why: str) -> Row:
    """Return a row that could not or need not be checked."""
    return Row(name, "skipped", why)


def wrong(name: str, error: SemcError) -> Row:
    """Return the row of an error."""
    return Row(name, "wrong", error.problem, error.fix, error.code)


def checked(name: str, check: Callable[[], str]) -> Row:
    """Run a check that returns what it found, or raises what is wrong."""
    try:
        return passed(name, check())
    except SemcError as error:
        return wrong(name, error)
