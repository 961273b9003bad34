"""One hash for a folder of public images, so that what was made of other images under its name is told apart."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from semc.exit_codes import ExitCode, SemcError


def folder_digest(root: Path) -> bytes:
    """Return the SHA-256 over the names and contents of all files below a folder; each is read once.

    Raises:
        SemcError: DATA_UNREADABLE.
    """
    digest = hashlib.sha256()
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    try:
        for name in sorted(files):
            with files[name].open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").digest()
            # A name's length comes first: no two folders can then run together into the same bytes.
            written = os.fsencode(name)
            digest.update(len(written).to_bytes(8, "big") + written + content)
    except OSError as error:
        raise SemcError(
            ExitCode.DATA_UNREADABLE,
            "A file in the folder of public images cannot be read.",
            "let this user read every file there",
        ) from error
    return digest.digest()
