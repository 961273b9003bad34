"""Numbered exit codes and the one error type every program of this project raises on bad input.

A user meets one line: what is wrong and how to fix it, and the number that scripts can test. The text never
holds a patient's path, file name or identifier; rows are named by their number in the manifest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class ExitCode(IntEnum):
    """Process exit status of `semc-client`, `semc-server` and `semc-sim`; listed with fixes in EXIT_CODES.md."""

    OK = 0
    INTERNAL = 1
    """A defect of this software; the log holds the traceback."""
    USAGE = 2
    """Wrong command-line arguments."""
    CONFIG_INVALID = 10
    """A study or site YAML has an unknown key, a wrong type or an impossible combination."""
    CONFIG_NOT_FOUND = 11
    """The named study or site file does not exist."""
    STUDY_MISMATCH = 12
    """Site and study disagree: model settings, digest, weights, or a study the site does not allow."""
    DATA_NOT_FOUND = 20
    """A data folder or manifest is missing."""
    DATA_UNREADABLE = 21
    """An image cannot be decoded."""
    LABEL_UNKNOWN = 22
    """A class name is not in the study's ontology."""
    SPLIT_EMPTY = 23
    """A split has no images."""
    SPLIT_LEAK = 24
    """One patient or stream stands in two splits, or rows have no group key."""
    CLASSES_TOO_FEW = 25
    """The site's training split holds a single class."""
    IMAGES_TOO_FEW = 26
    """The site has fewer training images than one batch, or too few to adopt a model."""
    IMAGE_MODE = 27
    """An image has a pixel mode the study does not accept."""
    MANIFEST_INVALID = 28
    """The manifest CSV is malformed."""
    DATA_CHANGED = 29
    """The site's data are not those of its last round of the study."""
    WEIGHTS_INVALID = 30
    """Pretrained weights are missing, of another hash or of another shape."""
    CHECKPOINT_INVALID = 31
    """A checkpoint or saved state is corrupt or belongs to another study."""
    DISK = 32
    """The disk is full or not writable."""
    DEVICE = 33
    """The requested compute device is not available."""
    SERVER_UNREACHABLE = 40
    """The coordinator does not answer."""
    TLS_UNTRUSTED = 41
    """The coordinator's certificate is not signed by the site's CA, is expired, or names another host."""
    KEY_UNREGISTERED = 42
    """The coordinator does not know this site's key."""
    KEY_INVALID = 43
    """A key file is missing, unreadable or too open."""
    ALREADY_RUNNING = 44
    """Another process of this project holds the lock."""
    PORT_IN_USE = 45
    """A port this program must listen on is taken."""
    VERSION_MISMATCH = 46
    """Flower or this software has another version than the study was made for."""
    CLOCK_SKEW = 47
    """The site's clock differs so much from the coordinator's that its signatures are refused."""
    QUORUM_LOST = 50
    """A round ended below its quorum; the study stopped and keeps its last checkpoint."""
    COMPLETE_ON_SUBSET = 51
    """The study finished, but in some round a named site did not take part."""
    RUN_FAILED = 52
    """The study's run failed at the coordinator."""
    CHECK_FAILED = 60
    """`semc-client check` found at least one failure."""
    BUDGET_REFUSED = 70
    """A study would cost patients more privacy than this hospital's policy or the study itself allows."""
    LEDGER_INVALID = 71
    """The privacy ledger is missing, damaged, rolled back or closed; nothing is trained without it."""
    POLICY_REFUSED = 72
    """The hospital's policy does not allow what the study asks, or there is no policy."""
    INTERRUPTED = 130
    """Ctrl-C; what goes on elsewhere is said."""

    @classmethod
    def of_process(cls, status: int) -> ExitCode:
        """Return a child program's exit code; RUN_FAILED for one that is none of ours, e.g. of a signal."""
        return cls(status) if status in cls._value2member_map_ else cls.RUN_FAILED


class SemcError(Exception):
    """Bad input, told as one line with its fix.

    Args:
        code: The exit status of the program that meets this error.
        problem: What is wrong and where; never a patient's path, name or identifier.
        fix: What the user can do about it.
    """

    def __init__(self, code: ExitCode, problem: str, fix: str) -> None:
        super().__init__(f"{problem} Fix: {fix}")
        self.code = code
        self.problem = problem
        self.fix = fix

    def __reduce__(self) -> tuple[type[SemcError], tuple[ExitCode, str, str]]:
        """Survive a process border: Ray and process pools pickle exceptions by their constructor."""
        return type(self), (self.code, self.problem, self.fix)

    def line(self) -> str:
        """Return the one line shown to the user."""
        return f"error {int(self.code)} {self.code.name}: {self.problem} Fix: {self.fix}"


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """End a command line with one line and its numbered exit code, whatever went wrong inside.

    An error nobody foresaw is a defect: its text may hold a path or a name, so only its type is shown.
    `--debug` anywhere on the command line lets the traceback through.

    Args:
        program: Name of the console script.
    """
    try:
        yield
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        known = (
            error
            if isinstance(error, SemcError)
            else SemcError(
                ExitCode.INTERNAL,
                f"Unforeseen {type(error).__name__}.",
                f"repeat it with `{program} --debug ...` and report it",
            )
        )
        print(known.line(), file=sys.stderr)
        sys.exit(int(known.code))
