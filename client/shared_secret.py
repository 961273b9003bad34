"""The secret between a site's worker and its SuperNode; new at every start, read by nobody else."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from semc.exit_codes import ExitCode, SemcError


def new_secret(folder: Path) -> Path:
    """Write a fresh secret and return its file.

    Raises:
        SemcError: DISK where the folder cannot be written.
    """
    path = folder / "secret"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_bytes(32))
    except OSError as error:
        raise SemcError(
            ExitCode.DISK,
            f"The run folder in the state directory cannot be written ({error.strerror}).",
            "free space, or correct state_directory or its owner",
        ) from error
    return path
