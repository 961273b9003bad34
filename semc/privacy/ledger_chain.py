"""The ledger's entries as a chain: each follows from the one before, the last is the one its anchor knows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from semc.privacy.ledger_anchor import Anchor, untrusted
from semc.privacy.ledger_events import NO_PREVIOUS, Created, Event, entry_hash, parse_event

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""How far an entry may lie before an earlier one; a clock corrected by more has to be explained first."""


@dataclass(frozen=True)
class Head:
    """An entry by which a ledger can be recognised later."""

    seq: int
    hash: str
    """SHA-256 (hex) over everything up to this entry."""


class Chain:
    """Entries that were verified.

    Attributes:
        events: All entries, oldest first; at least the one of its making.
        hashes: Their hashes.

    Args:
        rows: (number, canonical text, stored hash) in order, as they were found.

    Raises:
        SemcError: LEDGER_INVALID with the number of the first entry that is not as it was written.
    """

    def __init__(self, rows: Iterable[tuple[int, str, str]]) -> None:
        self.events: list[Event] = []
        self.hashes: list[str] = []
        previous, latest = NO_PREVIOUS, None
        for number, (seq, body, stored) in enumerate(rows, start=1):
            try:
                event = parse_event(body)
            except ValueError as error:
                raise untrusted(
                    f"Entry {number} of the privacy ledger is of an unknown kind or damaged."
                ) from error
            if (seq, event.seq, event.previous) != (number, number, previous):
                raise untrusted(f"Entry {number} of the privacy ledger does not follow the one before.")
            previous = entry_hash(previous, body)
            if stored != previous:
                raise untrusted(f"Entry {number} of the privacy ledger was changed.")
            if isinstance(event, Created) != (number == 1):
                raise untrusted("The privacy ledger does not begin with its making.")
            if latest is not None and event.at < latest - CLOCK_TOLERANCE:
                raise untrusted(f"Entry {number} of the privacy ledger is older than the one before.")
            latest = event.at if latest is None else max(latest, event.at)
            self.events.append(event)
            self.hashes.append(previous)
        if not self.events:
            raise untrusted("The privacy ledger is empty.")

    @property
    def created(self) -> Created:
        """The entry of the ledger's making."""
        first = self.events[0]
        assert isinstance(first, Created)
        return first

    @property
    def head(self) -> Head:
        """The last entry."""
        return Head(len(self.hashes), self.hashes[-1])

    @property
    def anchor(self) -> Anchor:
        """What the anchor has to say of this book."""
        return Anchor(ledger=self.created.ledger, seq=len(self.hashes), head=self.hashes[-1])

    def check_follows(self, event: Event) -> None:
        """Refuse an entry that the clock puts before the ones that are there.

        Raises:
            SemcError: LEDGER_INVALID.
        """
        if event.at < max(earlier.at for earlier in self.events) - CLOCK_TOLERANCE:
            raise untrusted(
                "This machine's clock stands before the privacy ledger's last entry.", "correct the clock"
            )

    def check_anchor(self, anchor: Anchor) -> None:
        """Refuse a chain that is not the one its anchor knows, or at most one entry ahead of it.

        Raises:
            SemcError: LEDGER_INVALID.
        """
        if anchor.ledger != self.created.ledger:
            raise untrusted("The privacy ledger and its anchor belong to different ledgers.")
        if not len(self.hashes) - 1 <= anchor.seq <= len(self.hashes):
            state = "older than" if anchor.seq > len(self.hashes) else "too far ahead of"
            raise untrusted(f"The privacy ledger is {state} its anchor.")
        if self.hashes[anchor.seq - 1] != anchor.head:
            raise untrusted("The privacy ledger is not the one its anchor knows.")
