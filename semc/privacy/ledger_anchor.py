"""The ledger's anchor: its name, length and last hash, in a file outside the ledger's folder.

Whoever restores the ledger's folder from a backup brings back an older chain, whole in itself. The anchor knows that it
was longer. Who brings back both can be found out only by somebody else's memory: every reply carries the head.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from semc.exit_codes import ExitCode, SemcError
from semc.whole_file import write_whole

_LONGEST = 4096


@dataclass(frozen=True)
class LedgerPlace:
    """Where a hospital keeps its ledger.

    Raises:
        SemcError: CONFIG_INVALID where the anchor lies inside the ledger's folder.
    """

    folder: Path
    """The ledger's own folder, mode 0700."""
    anchor: Path
    """A file elsewhere, so that one restored backup does not hold both."""

    def __post_init__(self) -> None:
        if self.anchor.parent.resolve().is_relative_to(self.folder.resolve()):
            raise SemcError(
                ExitCode.CONFIG_INVALID,
                "The state directory lies inside the ledger's folder.",
                "give `ledger` in the site file a folder of its own",
            )

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.folder / "ledger.sqlite"

    def exists(self) -> bool:
        """Tell whether a ledger was ever made here: either half is there."""
        return os.path.lexists(self.database) or os.path.lexists(self.anchor)


class Anchor(BaseModel):
    """The last entry that was known to be on disk."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1] = 1
    ledger: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    seq: int = Field(ge=1)
    head: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def untrusted(problem: str, fix: str | None = None) -> SemcError:
    """Return the error of a ledger that cannot be trusted; nothing is trained with it."""
    return SemcError(
        ExitCode.LEDGER_INVALID,
        problem,
        fix
        or "nothing private is trained until the newest ledger and anchor are back; the coordinator's record of this "
        "site's ledger heads tells which they are",
    )


def check_own(path: Path, what: Literal["folder", "file", "anchor"]) -> None:
    """Refuse a file or folder that is missing, a link, somebody else's or readable by others.

    Raises:
        SemcError: LEDGER_INVALID.
    """
    try:
        found = os.lstat(path)
    except OSError as error:
        raise untrusted(
            f"The privacy ledger's {what} is missing or cannot be read.",
            "restore the newest copy of what is missing; where there never was a ledger, `semc-client ledger init` "
            "makes one; where it is lost, SECURITY.md tells how a new one begins: missing does not mean fresh",
        ) from error
    if not (stat.S_ISDIR(found.st_mode) if what == "folder" else stat.S_ISREG(found.st_mode)):
        raise untrusted(f"The privacy ledger's {what} is a link or of another type.")
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        mode = "0700" if what == "folder" else "0600"
        raise untrusted(
            f"The privacy ledger's {what} belongs to another user or is open to others.",
            f"give it to the user of semc-client with mode {mode}, and find out who could change it",
        )


def read_anchor(path: Path) -> Anchor:
    """Read an anchor.

    Raises:
        SemcError: LEDGER_INVALID where it is missing, not ours or unreadable.
    """
    check_own(path, "anchor")
    try:
        with path.open("rb") as stream:
            return Anchor.model_validate_json(stream.read(_LONGEST))
    except (OSError, ValueError) as error:
        raise untrusted("The privacy ledger's anchor is damaged.") from error


def write_anchor(path: Path, anchor: Anchor) -> None:
    """Replace the anchor, whole or not at all, and wait until it is on the disk.

    Raises:
        SemcError: DISK.
    """
    text = json.dumps(anchor.model_dump(), sort_keys=True).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text, mode=0o600)
    except OSError as error:
        raise SemcError(
            ExitCode.DISK,
            f"The privacy ledger's anchor could not be written ({error.strerror}).",
            "free space or make state_directory writable",
        ) from error
