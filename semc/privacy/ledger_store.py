"""The ledger on disk: an append-only SQLite table whose whole chain is verified every time it is opened.

Every use takes one lock, reads and verifies all entries, compares them with the anchor, appends at most one, waits for
the disk, and moves the anchor. Nothing is remembered between two uses, so a file that was changed, replaced or deleted
meanwhile is met. A crash between entry and anchor leaves the ledger exactly one entry ahead of an anchor that lies in
its chain: the only difference that heals by itself. Everything else is refused.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from semc.exit_codes import ExitCode, SemcError
from semc.privacy.ledger_anchor import (
    Anchor,
    LedgerPlace,
    check_own,
    read_anchor,
    untrusted,
    write_anchor,
)
from semc.privacy.ledger_chain import Chain
from semc.privacy.ledger_events import Created, Event, Unprotected, canonical, entry_hash
from semc.whole_file import sync

_SCHEMA: Final = (
    "CREATE TABLE events (seq INTEGER PRIMARY KEY, body TEXT NOT NULL, hash TEXT NOT NULL)",
    "CREATE TRIGGER events_stay BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'append only'); END",
    "CREATE TRIGGER events_remain BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'append only'); END",
)
_WAIT_SECONDS: Final = 30.0


class Book(Chain):
    """A ledger held open and locked: a verified chain to which one entry can be appended."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        schema = [
            sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master ORDER BY rowid").fetchall()
        ]
        if schema != list(_SCHEMA):
            raise untrusted("The privacy ledger's table has another form.")
        # all rows at once: a statement left half-read by a refusal would keep the database locked
        super().__init__(connection.execute("SELECT seq, body, hash FROM events ORDER BY seq").fetchall())
        self._connection = connection
        self._num_read = len(self.events)

    def append(self, event: Event) -> str:
        """Append the one entry of this use and return its hash; it is on disk when the book is closed.

        Raises:
            SemcError: LEDGER_INVALID where the clock has gone back.
        """
        assert len(self.events) == self._num_read, "one entry per use: the anchor may fall behind by one only"
        self.check_follows(event)
        self.hashes.append(_insert(self._connection, event.seq, event.previous, canonical(event)))
        self.events.append(event)
        return self.hashes[-1]


def make_database(place: LedgerPlace, first: Created, unprotected: Sequence[str] = ()) -> None:
    """Make a ledger with its first entries, all or none of them, and its anchor.

    Args:
        place: Where it shall lie.
        first: The entry of its making.
        unprotected: Studies that were trained without protection before; each is noted.

    Raises:
        SemcError: LEDGER_INVALID where a ledger or an anchor exists, DISK where they cannot be written.
    """
    if place.exists():
        raise untrusted(
            "A privacy ledger or its anchor exists already; what was spent is never forgotten.",
            "`semc-client ledger show` tells what it holds; where it is lost for good, see SECURITY.md",
        )
    part = place.database.with_name("ledger.new")
    try:
        place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_own(place.folder, "folder")
        with _locked(place):
            part.unlink(missing_ok=True)
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
            with closing(_connected(part)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                for statement in _SCHEMA:
                    connection.execute(statement)
                head = _insert(connection, first.seq, first.previous, canonical(first))
                for seq, study in enumerate(unprotected, start=first.seq + 1):
                    noted = Unprotected(seq=seq, at=first.at, previous=head, study_digest=study)
                    head = _insert(connection, seq, head, canonical(noted))
                connection.execute("COMMIT")
            os.link(part, place.database)  # unlike a rename it never replaces a ledger made meanwhile
            part.unlink()
            sync(place.folder)
            write_anchor(
                place.anchor, Anchor(ledger=first.ledger, seq=first.seq + len(unprotected), head=head)
            )
    except FileExistsError as error:
        raise untrusted(
            "Another process has just made a privacy ledger.", "`semc-client ledger show` tells what it holds"
        ) from error
    except OSError as error:
        raise SemcError(
            ExitCode.DISK,
            f"The privacy ledger could not be written ({error.strerror}).",
            "make the folder writable",
        ) from error
    except sqlite3.Error as error:
        raise _of_sqlite(error) from error


@contextmanager
def opened(place: LedgerPlace) -> Iterator[Book]:
    """Hold a ledger open, verified and locked against every other process and thread.

    What was appended is on disk, and the anchor moved, when the block has ended without an exception.

    Raises:
        SemcError: LEDGER_INVALID where anything is not as it was left, DISK, or ALREADY_RUNNING where another
            program holds the database.
    """
    check_own(place.folder, "folder")
    check_own(place.database, "file")
    with _locked(place):
        try:
            with closing(_connected(place.database)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                book = Book(connection)
                anchor = read_anchor(place.anchor)
                book.check_anchor(anchor)
                if (
                    book.anchor != anchor
                ):  # before anything is appended: a second crash must find it one behind again
                    write_anchor(place.anchor, book.anchor)
                healed = book.anchor
                yield book
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise _of_sqlite(error) from error
        if book.anchor != healed:
            write_anchor(place.anchor, book.anchor)


@contextmanager
def _locked(place: LedgerPlace) -> Iterator[None]:
    """Hold the lock of the ledger's folder: entry and anchor move together, whoever else wants to."""
    try:
        descriptor = os.open(place.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise untrusted("The privacy ledger's folder cannot be read.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _connected(database: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{database.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=_WAIT_SECONDS
    )
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA journal_mode = DELETE")
    # FULL waits for the data; EXTRA also for the journal's removal, without which a power cut undoes a commit
    connection.execute("PRAGMA synchronous = EXTRA")
    return connection


def _insert(connection: sqlite3.Connection, seq: int, previous: str, body: str) -> str:
    found = entry_hash(previous, body)
    connection.execute("INSERT INTO events VALUES (?, ?, ?)", (seq, body, found))
    return found


def _of_sqlite(error: sqlite3.Error) -> SemcError:
    """Return what an error of SQLite means to the hospital."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return SemcError(
            ExitCode.ALREADY_RUNNING, "Another program holds the privacy ledger.", "end it and try again"
        )
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        return SemcError(
            ExitCode.DISK,
            "The privacy ledger cannot be written.",
            "free space or make its folder writable",
        )
    return untrusted("The privacy ledger is damaged.")
