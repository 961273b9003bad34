"""`semc-client accept-data`: a hospital says that its changed images are meant to be used from now on.

The hospital's word is one fingerprint in its state directory. It holds for these very data: whatever changes after it
is asked about again. The process that trains looks at it at every round, so it need not be restarted.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from client.data_fingerprint import DATA_FOLDER, DataChanges, DataFingerprint, SiteDataWatch
from client.local_state import data_trained_last
from semc.config import SiteConfig
from semc.exit_codes import ExitCode, SemcError
from semc.whole_file import write_whole

_DIGITS_SHOWN: Final = 12

log = logging.getLogger(__name__)


class _Accepted(BaseModel):
    """The file's content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str


@dataclass(frozen=True)
class Acceptance:
    """What was accepted."""

    site: str
    fingerprint: DataFingerprint
    changes: DataChanges | None
    """Against the data of the newest round trained here; None where there is none, or its rows are forgotten."""

    def text(self) -> str:
        """Return the lines for people."""
        known = "unknown" if self.changes is None else str(self.changes)
        return (
            f"accepted  {len(self.fingerprint.rows)} images of {self.site}, "
            f"fingerprint {self.fingerprint.sha256[:_DIGITS_SHOWN]}\n"
            f"changes   {known} since the last round trained here"
        )

    def to_json(self) -> str:
        """Return the same for scripts."""
        changes = self.changes
        content = {
            "site": self.site,
            "images": len(self.fingerprint.rows),
            "fingerprint": self.fingerprint.sha256,
            "added": None if changes is None else changes.added,
            "removed": None if changes is None else changes.removed,
            "changed": None if changes is None else changes.changed,
        }
        return json.dumps(content, indent=1)


def accept_data(site: SiteConfig) -> Acceptance:
    """Accept a site's data as they lie on disk now.

    Raises:
        SemcError: DATA_NOT_FOUND, MANIFEST_INVALID or DISK.
    """
    watch = SiteDataWatch(site)
    present = watch.now()
    before = data_trained_last(site.state_directory)
    earlier = None if before is None else watch.rows_of(before)
    file = _file(site)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, _Accepted(sha256=present.sha256).model_dump_json().encode())
    except OSError as error:
        raise SemcError(
            ExitCode.DISK,
            f"The accepted data could not be noted ({error.strerror}).",
            "free space or make the state directory writable",
        ) from error
    return Acceptance(site.site, present, None if earlier is None else present.changes_since(earlier))


def goes_on_with(site: SiteConfig, present: DataFingerprint, earlier: str) -> bool:
    """Tell whether the data are still those of an earlier round; where not, they must have been accepted.

    Args:
        site: The hospital.
        present: The data now.
        earlier: SHA-256 of the data of the round before; empty where none was noted, which asks nothing.

    Raises:
        SemcError: DATA_CHANGED where they are others and were not accepted.
    """
    if earlier in ("", present.sha256):
        return True
    if _is_accepted(site, present):
        log.info("the changed images were accepted: the memory of past images starts anew")
        return False
    rows = SiteDataWatch(site).rows_of(earlier)
    changes = "" if rows is None else f": {present.changes_since(rows)}"
    raise SemcError(
        ExitCode.DATA_CHANGED,
        f"The site's images are not those of its last round{changes}.",
        f"check them, then `semc-client accept-data --site {site.site}`, or restore the data",
    )


def _is_accepted(site: SiteConfig, fingerprint: DataFingerprint) -> bool:
    try:
        accepted = _Accepted.model_validate_json(_file(site).read_bytes())
    except (OSError, ValidationError):
        return False
    return accepted.sha256 == fingerprint.sha256


def _file(site: SiteConfig) -> Path:
    return site.state_directory / DATA_FOLDER / "accepted.json"
