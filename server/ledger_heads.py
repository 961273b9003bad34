"""The heads of the sites' privacy ledgers that this coordinator has seen, over all its runs.

A head is the SHA-256 of a ledger's last entry. Whoever keeps it can prove later that the ledger once held that entry:
an older copy put back does not contain it. So the newest head of a site travels back with its next task, and the site
refuses where its ledger no longer knows it. Here each head may answer one question only (study, round, weights):
given for another, nothing was charged for that answer, and it is refused. The same answer again is no new release.

One JSON line per head, only ever appended. A line counts once it ends: what a full disk or a power cut left of one
was never answered for, and the next line takes its place.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final

from semc.exit_codes import ExitCode, SemcError

HEADS_FILE: Final = "ledger-heads.jsonl"
_NEW_LEDGER: Final = ""
"""In the place of a head: from here on another ledger."""


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
        with self._file.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH)  # another run may be writing
            lines = self._parse(_whole_lines(stream.read()))
        newest = next((line.head for line in reversed(lines) if line.site == site), None)
        return newest or None

    def begin_anew(self, site: str) -> None:
        """Record that a hospital made a new ledger on purpose: its old heads are no longer asked for.

        They stay in the file and are still refused as answers to other questions.

        Raises:
            SemcError: DISK where it cannot be written.
        """
        nothing = Asked(study_digest="", round_number=0, incoming_sha256="")
        with self._appending() as stream:
            self._append(stream, _Seen(site, _NEW_LEDGER, nothing))

    def accept(self, site: str, head: str, asked: Asked) -> bool:
        """Record a head that answers a question; False where the site gave it for another one before.

        Raises:
            SemcError: CHECKPOINT_INVALID where the file is damaged, DISK where it cannot be written.
        """
        with self._appending() as stream:
            lines = self._parse(stream.read())
            answered = [line.asked for line in lines if (line.site, line.head) == (site, head)]
            if answered:
                return asked in answered
            self._append(stream, _Seen(site, head, asked))
        return True

    @contextmanager
    def _appending(self) -> Iterator[BinaryIO]:
        """Hold the file against other runs, at its start and without a torn last line."""
        try:
            with self._file.open("a+b", buffering=0) as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                stream.seek(0)
                stream.truncate(len(_whole_lines(stream.read())))
                stream.seek(0)
                yield stream
        except OSError as error:
            raise SemcError(
                ExitCode.DISK,
                f"The heads of the sites' ledgers could not be kept ({error.strerror}).",
                "free space on the coordinator's disk",
            ) from error

    @staticmethod
    def _append(stream: BinaryIO, seen: _Seen) -> None:
        """Write one line and wait for the disk; a line that fails leaves nothing."""
        end = stream.seek(0, os.SEEK_END)
        line = json.dumps(asdict(seen)).encode() + b"\n"
        try:
            if stream.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(stream.fileno())
        except OSError:
            with suppress(OSError):
                stream.truncate(end)
            raise

    @staticmethod
    def _parse(text: bytes) -> list[_Seen]:
        try:
            entries = [json.loads(line) for line in text.splitlines()]
            return [_Seen(entry["site"], entry["head"], Asked(**entry["asked"])) for entry in entries]
        except (ValueError, KeyError, TypeError) as error:
            raise SemcError(
                ExitCode.CHECKPOINT_INVALID,
                "The record of the sites' ledger heads is damaged.",
                f"restore {HEADS_FILE} from a backup",
            ) from error


def _whole_lines(text: bytes) -> bytes:
    """Return a file's content without an incomplete last line."""
    return text[: text.rfind(b"\n") + 1]
