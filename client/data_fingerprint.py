"""Whether a site's data are those of its last round: one hash over its rows and the content of their images.

A round goes on from what the rounds before it left: row numbers and embeddings in the queue, class counts, which
images were tested. A site that trained on other images without a word would make a study's figures untrue, so it
asks first. The fingerprint belongs to the site, not to a study, and never leaves it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from client.content_hashes import ContentHashes
from semc.config import SiteConfig
from semc.datasets.listed_images import ListedImage, listed_images, place_of, reading_rules
from semc.whole_file import write_whole

DATA_FOLDER: Final = "data"
"""In the state directory: hashes, the rows of fingerprints seen, what was accepted."""
_KEPT_ROWS: Final = 8
_DIGITS: Final = 16
_SEEN: Final = "rows-"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataChanges:
    """How many images two states of a site's data differ in."""

    added: int
    removed: int
    changed: int
    """Other pixels, label, patient or split."""

    def __str__(self) -> str:
        if self.added == self.removed == self.changed == 0:
            return "the same images in another order, or read by other rules"
        return f"{self.added} added, {self.removed} removed, {self.changed} changed"


@dataclass(frozen=True)
class DataFingerprint:
    """A site's data at one moment."""

    sha256: str
    rows: Mapping[str, str] = field(compare=False, repr=False)
    """Each image's row and content by its key, both as short hashes: enough to count what changed."""

    def changes_since(self, earlier: Mapping[str, str]) -> DataChanges:
        """Count what differs from the rows of an earlier fingerprint."""
        both = self.rows.keys() & earlier.keys()
        return DataChanges(
            added=len(self.rows.keys() - both),
            removed=len(earlier.keys() - both),
            changed=sum(self.rows[key] != earlier[key] for key in both),
        )


class _SeenRows(BaseModel):
    """Rows of a fingerprint on disk."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    rows: dict[str, str]


class SiteDataWatch:
    """Tells a site's present fingerprint; where nothing changed, asking again costs a look at each file's time.

    Args:
        site: The hospital: its data section and state directory.
    """

    def __init__(self, site: SiteConfig) -> None:
        self._data = site.data
        self._folder = site.state_directory / DATA_FOLDER
        self._hashes = ContentHashes(self._folder / "content.json")
        self._listed: tuple[tuple[int, int], list[ListedImage]] | None = None
        self._plain: set[str] = set()
        """Keys of images that were reached without following a link."""
        self._last: DataFingerprint | None = None
        self._noted = ""
        """SHA-256 of the fingerprint whose rows were kept last."""

    def now(self) -> DataFingerprint:
        """Return the fingerprint of the data as they lie on disk now, and keep what makes the next look cheap.

        Raises:
            SemcError: DATA_NOT_FOUND or MANIFEST_INVALID.
        """
        found = self.look()
        if self._noted != found.sha256:
            self._noted = found.sha256
            self._remember(found)
        self._hashes.save(found.rows.keys())
        return found

    def look(self) -> DataFingerprint:
        """Return the same without writing anything.

        Raises:
            SemcError: DATA_NOT_FOUND or MANIFEST_INVALID.
        """
        images = self._images()
        root = self._data.root.resolve()
        total = hashlib.sha256(reading_rules(self._data).encode())
        rows: dict[str, str] = {}
        for image in images:
            entry = f"{image.key}\n{image.cells}\n{self._content(image, root)}"
            total.update(f"{image.row}\n{entry}\n".encode())
            rows[image.key] = entry
        sha256 = total.hexdigest()
        if self._last is None or self._last.sha256 != sha256:
            short = {key: hashlib.sha256(entry.encode()).hexdigest()[:_DIGITS] for key, entry in rows.items()}
            self._last = DataFingerprint(sha256, short)
        return self._last

    def rows_of(self, sha256: str) -> Mapping[str, str] | None:
        """Return the rows of an earlier fingerprint; None where they are no longer known."""
        try:
            seen = _SeenRows.model_validate_json(self._seen(sha256).read_bytes())
        except (OSError, ValidationError):
            return None
        return seen.rows if seen.sha256 == sha256 else None

    def _images(self) -> list[ListedImage]:
        """Return the site's rows, read again where the manifest changed; a layout of folders is always read."""
        if self._data.format != "manifest":
            return listed_images(self._data)
        with suppress(OSError):
            found = (self._data.root / self._data.manifest).stat()
            stamp = (found.st_size, found.st_mtime_ns)
            if self._listed is None or self._listed[0] != stamp:
                self._listed = (stamp, listed_images(self._data))
            return self._listed[1]
        return listed_images(self._data)  # which says what is missing

    def _content(self, image: ListedImage, root: Path) -> str:
        """Return the hash of an image's file; "" where it is missing, unreadable or outside of the folder."""
        place: Path | None = root / image.file
        if image.key not in self._plain:  # following links costs six times the look at a file's time
            found = place_of(image, root)
            if found == place:
                self._plain.add(image.key)
            place = found
        return "" if place is None else self._hashes.of(image.key, place)

    def _remember(self, fingerprint: DataFingerprint) -> None:
        """Keep the rows of a fingerprint, so that what changes later can be counted; the oldest are forgotten."""
        file = self._seen(fingerprint.sha256)
        seen = _SeenRows(sha256=fingerprint.sha256, rows=dict(fingerprint.rows))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(file, seen.model_dump_json().encode())
            for old in sorted(self._folder.glob(f"{_SEEN}*"), key=_time)[:-_KEPT_ROWS]:
                old.unlink()
        except OSError as error:
            log.warning("the list of the images could not be kept (%s)", error.strerror)

    def _seen(self, sha256: str) -> Path:
        return self._folder / f"{_SEEN}{sha256[:_DIGITS]}.json"


def _time(file: Path) -> int:
    return file.stat().st_mtime_ns
