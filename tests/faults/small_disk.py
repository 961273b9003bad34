"""A folder on a disk of its own that can be filled to the last byte; needs the right to mount."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import IO

_PIECE = 64 << 10


def can_mount() -> bool:
    """Whether this process may mount a file system."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


class SmallDisk:
    """A tmpfs over a folder; a context manager.

    Args:
        folder: Made where missing; what it held is hidden meanwhile.
        megabytes: Size.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self._folder, self._megabytes = folder, megabytes
        self._filler = folder / "filler"

    def __enter__(self) -> SmallDisk:
        self._folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={self._megabytes}m,mode=0700", "tmpfs"]
        subprocess.run([*command, str(self._folder)], check=True)
        return self

    def __exit__(self, *_error: object) -> None:
        subprocess.run(["umount", "--lazy", str(self._folder)], check=True)

    def fill(self) -> None:
        """Leave not a page free."""
        with self._filler.open("ab", buffering=0) as stream:
            for size in (_PIECE, 1):
                while _took(stream, size):
                    pass

    def free(self) -> None:
        """Take the filling away."""
        self._filler.unlink()


def _took(stream: IO[bytes], size: int) -> bool:
    """Write so many bytes; False where the disk is full."""
    try:
        stream.write(b"x" * size)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True
