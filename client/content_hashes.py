"""Hashes of a site's image files, read once: a file is read again only where its size or its time changed.

They outlive the process, so that a restart does not read ten gigabytes again. What lies on disk names no file: images
are known by a hash of their place. A file changed behind an unchanged size and time is not noticed; no tool does that
by accident.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from semc.whole_file import write_whole

log = logging.getLogger(__name__)


class _SavedHashes(BaseModel):
    """The file's content: key -> size in bytes, time of the last change in ns, SHA-256 (hex)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: dict[str, tuple[int, int, str]]


class ContentHashes:
    """SHA-256 of files by key.

    Args:
        file: Where they are kept.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, tuple[int, int, str]] | None = None
        self._unsaved = False

    def of(self, key: str, path: Path) -> str:
        """Return a file's hash; "" where it cannot be read.

        Args:
            key: The file's name here.
            path: Where it lies.
        """
        known = self._load()
        try:
            found = path.stat()
            before = known.get(key)
            if before is not None and before[:2] == (found.st_size, found.st_mtime_ns):
                return before[2]
            with path.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError:
            return ""
        known[key] = (found.st_size, found.st_mtime_ns, sha256)
        self._unsaved = True
        return sha256

    def save(self, keys: Collection[str]) -> None:
        """Keep the hashes of these files for the next process; a disk that is full only costs reading them again."""
        if not self._unsaved:
            return
        wanted = set(keys)
        self._known = {key: entry for key, entry in self._load().items() if key in wanted}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._file, _SavedHashes(files=self._known).model_dump_json().encode())
            self._unsaved = False
        except OSError as error:
            log.warning("the hashes of the images could not be kept (%s)", error.strerror)

    def _load(self) -> dict[str, tuple[int, int, str]]:
        if self._known is None:
            try:
                self._known = _SavedHashes.model_validate_json(self._file.read_bytes()).files
            except (OSError, ValidationError):
                self._known = {}
        return self._known
