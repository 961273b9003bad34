"""A process's log: small files, and a full disk costs lines, never the process that writes them."""

from __future__ import annotations

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from client.disk_trouble import DiskTrouble
from semc.exit_codes import ExitCode, SemcError

_LOG_BYTES: Final = 4 << 20
_LOG_FILES: Final = 3


class LogFile(RotatingFileHandler):
    """A rotating log that drops the lines its disk has no room for.

    Args:
        path: The file; made with its folder.
        trouble: Told when a line could not be written, and when one could.

    Raises:
        SemcError: DISK where the file cannot be opened.
    """

    def __init__(self, path: Path, trouble: DiskTrouble) -> None:
        self._trouble = trouble
        self._dropped = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            super().__init__(path, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, encoding="utf-8")
        except OSError as error:
            raise SemcError(
                ExitCode.DISK,
                f"The logs folder in the state directory cannot be written ({error.strerror}).",
                "free space, or correct state_directory or its owner",
            ) from error
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s"))

    def line(self, text: str) -> None:
        """Write one line; never raises."""
        before = self._dropped
        if before:
            self.handle(_record(f"({before} lines before this one could not be written)"))
        if self._dropped == before:
            self._dropped = 0
            self.handle(_record(text))
        else:
            self._dropped = before + 1
        if not self._dropped:
            self._trouble.written()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name logging calls
        """Count a line that could not be written; logging would print a traceback for each."""
        error = sys.exc_info()[1]
        self._dropped += 1
        if isinstance(error, OSError):
            self._trouble.met(error)


def _record(text: str) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text, "levelno": logging.INFO})
