"""The heads of the sites' privacy ledgers that this coordinator has seen, over all its runs.

A head is the SHA-256 of a ledger's last entry. Whoever keeps it can prove later that the ledger once held that entry:
an older copy put back does not contain it. So the newest head of a site travels back with its next task, and the site
refuses where its ledger no longer knows it. Here each head may answer one question only (study, round, weights):
given for another, nothing was charged for that answer, and it is refused. The same answer again is no new release.

One JSON line per head, only ever appended.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from semc.exit_codes import ExitCode, SemcError

HEADS_FILE: Final = "ledger-heads.jsonl"


@dataclass(frozen=True)
class Asked:
    """What a training reply answers."""

    study_digest: str
    round_number: int
    incoming_sha256: str
    """SHA-256 of the weights that were sent."""


@dataclass(frozen=True)
class _Seen:
    """One line of the file."""

    site: str
    head: str
    asked: Asked


class LedgerHeads:
    """Appends to and looks into one file; several runs of a coordinator share it.

    Args:
        file: Made when the first head comes.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def newest(self, site: str) -> str | None:
        """Return the head a site gave last, None before its first.

        Raises:
            SemcError: CHECKPOINT_INVALID where the file is damaged.
        """
        if not self._file.exists():
            return None
        with self._file.open(encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH)  # another run may be writing
            lines = self._parse(stream.read())
        return next((line.head for line in reversed(lines) if line.site == site), None)

    def accept(self, site: str, head: str, asked: Asked) -> bool:
        """Record a head that answers a question; False where the site gave it for another one before.

        Raises:
            SemcError: CHECKPOINT_INVALID where the file is damaged, DISK where it cannot be written.
        """
        try:
            with self._file.open("a+", encoding="utf-8") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                stream.seek(0)
                answered = [
                    line.asked
                    for line in self._parse(stream.read())
                    if (line.site, line.head) == (site, head)
                ]
                if answered:
                    return asked in answered
                stream.write(json.dumps(asdict(_Seen(site, head, asked))) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise SemcError(
                ExitCode.DISK,
                f"The heads of the sites' ledgers could not be kept ({error.strerror}).",
                "free space on the coordinator's disk",
            ) from error
        return True

    @staticmethod
    def _parse(text: str) -> list[_Seen]:
        try:
            entries = [json.loads(line) for line in text.splitlines()]
            return [_Seen(entry["site"], entry["head"], Asked(**entry["asked"])) for entry in entries]
        except (ValueError, KeyError, TypeError) as error:
            raise SemcError(
                ExitCode.CHECKPOINT_INVALID,
                "The record of the sites' ledger heads is damaged.",
                f"restore {HEADS_FILE} from a backup",
            ) from error
