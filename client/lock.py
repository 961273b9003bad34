"""A lock that one process holds and that no crash leaves behind (flock on a file in the state directory)."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semc.exit_codes import ExitCode, SemcError


def is_held(path: Path) -> bool:
    """Tell whether another process holds the lock of a file, which is neither made nor changed.

    A file that is missing or cannot be opened counts as free.
    """
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def held(path: Path, problem: str, fix: str) -> Iterator[None]:
    """Hold the lock of a file for the length of a block.

    Args:
        path: The file; made where missing, with its folder.
        problem: What it means that another process holds it.
        fix: What the operator can do then.

    Raises:
        SemcError: ALREADY_RUNNING where another process holds it, DISK where the folder is not writable.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("w")
    except OSError as error:
        raise SemcError(
            ExitCode.DISK,
            f"The state directory is not writable ({error.strerror}).",
            "correct state_directory or its owner",
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SemcError(ExitCode.ALREADY_RUNNING, problem, fix) from error
        yield
