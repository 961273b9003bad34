"""A hospital's privacy ledger: reserves before data are opened, counts every reservation, refuses over the limit.

It belongs to the site and to its patients: all studies, rounds and runs draw on one budget, and a changed cohort
inherits everything, so that no patient's past is ever forgotten. A reservation counts whatever becomes of it: a crash
is not refunded, and a round that is computed again is charged again.

Chain and anchor have no key: they show every change that leaves one of them as it was. Who controls the machine can
bring back an older copy of both, or write both anew. The coordinator's memory of the heads finds that
(:meth:`Ledger.contains`); nothing at the site can prevent it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from semc.exit_codes import ExitCode, SemcError
from semc.privacy.accounting import rdp_epsilon
from semc.privacy.ledger_anchor import LedgerPlace, untrusted
from semc.privacy.ledger_chain import Head
from semc.privacy.ledger_charges import (
    Reservation,
    charges,
    check_usable,
    limit_broken,
    may_evaluate,
    unprotected,
)
from semc.privacy.ledger_events import (
    NO_PREVIOUS,
    Close,
    Commit,
    Created,
    Evaluate,
    Event,
    Refuse,
    Reserve,
    Unprotected,
)
from semc.privacy.ledger_store import Book, make_database, opened
from semc.privacy.limits import Limits

__all__ = ["Head", "Ledger", "LedgerPlace", "Reservation", "Reserved", "charges"]


@dataclass(frozen=True)
class Reserved:
    """A round that has been charged."""

    seq: int
    head: str
    """The entry's hash: the head that travels with the reply."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """The ledger of one hospital; opening it verifies the whole chain, and so does every use.

    Verifying costs about 0.1 s at 10,000 entries; a round takes longer by orders of magnitude.

    Args:
        place: Where it lies.
        site: The hospital's name, which the ledger must bear; left out: any.
        clock: Current time, UTC.

    Raises:
        SemcError: LEDGER_INVALID where it is missing, damaged, rolled back or another hospital's.
    """

    def __init__(
        self, place: LedgerPlace, *, site: str | None = None, clock: Callable[[], datetime] = _utc_now
    ) -> None:
        self._place = place
        self._site = site
        self._clock = clock
        self._seen: Head | None = None
        self.head()

    @classmethod
    def create(
        cls,
        place: LedgerPlace,
        *,
        site: str,
        patients: int,
        delta: float,
        epsilon_total: float,
        unprotected: Sequence[str] = (),
        clock: Callable[[], datetime] = _utc_now,
    ) -> Ledger:
        """Make a ledger: a deliberate act of the hospital, never a consequence of a missing file.

        Args:
            place: Where it shall lie.
            site: The hospital's name.
            patients: Public lower bound on its training patients.
            delta: Probability with which the total's bound may fail, below 1 / patients; a smaller one in the policy
                counts, a larger one does not.
            epsilon_total: Most that is ever spent; a smaller one in the policy counts, a larger one does not.
            unprotected: Digests of studies of mode none that were trained here before; noted in the same act, because
                a ledger that was made without them cannot be made again.
            clock: Current time, UTC.

        Raises:
            SemcError: LEDGER_INVALID where a ledger or an anchor exists; CONFIG_INVALID where delta is too large;
                DISK.
        """
        if not delta * patients < 1:
            raise SemcError(
                ExitCode.CONFIG_INVALID,
                "delta must be below 1 / patients: at 1/n publishing one patient is allowed.",
                "lower budget.delta in the policy",
            )
        first = Created(
            seq=1,
            at=clock(),
            previous=NO_PREVIOUS,
            ledger=secrets.token_hex(16),
            site=site,
            patients=patients,
            delta=delta,
            epsilon_total=epsilon_total,
        )
        make_database(place, first, unprotected)
        return cls(place, site=site, clock=clock)

    def reserve(self, reservation: Reservation, limits: Limits) -> Reserved:
        """Charge a round, before its data are opened.

        The answer depends on the ledger, the study and the policy alone, never on images.

        Args:
            reservation: The round.
            limits: The stricter of study and policy (:func:`semc.privacy.limits.effective`).

        Raises:
            SemcError: BUDGET_REFUSED where the round would break the hospital's or the study's limit (noted as a
                refuse entry); POLICY_REFUSED where its noise is outside the policy, or patients were trained on
                without protection; LEDGER_INVALID; DISK.
        """
        limits.check(reservation.mechanism)
        with self._opened() as book:
            check_usable(book.events, limits)
            over = limit_broken(book, reservation, limits)
            fields: dict[str, Any] = {
                "study_digest": reservation.study_digest,
                "round_number": reservation.round_number,
                "incoming_sha256": reservation.incoming_sha256,
                "noise_multiplier": reservation.mechanism.noise_multiplier,
                "sampling_rate": reservation.mechanism.sampling_rate,
                "steps": reservation.mechanism.steps,
                "accountant_version": version("opacus"),
            }
            seq = (
                self._append(book, Reserve, fields)
                if over is None
                else self._append(book, Refuse, {**fields, "over": over})
            )
            head = book.hashes[-1]
        if over is not None:
            whose = "this hospital's total" if over == "total" else "this study's limit"
            raise SemcError(
                ExitCode.BUDGET_REFUSED,
                f"The round would cost patients more privacy than {whose} allows.",
                "`semc-client ledger show` tells what is left",
            )
        return Reserved(seq, head)

    def commit(self, seq: int, outgoing_sha256: str) -> str:
        """Note that a reserved round's answer was made, and return the new head.

        Args:
            seq: Of the reservation.
            outgoing_sha256: SHA-256 (hex) of the answer's tensors.

        Raises:
            SemcError: LEDGER_INVALID where there is no such reservation, or it was committed before.
        """
        with self._opened() as book:
            reserved = len(book.events) >= seq >= 1 and isinstance(book.events[seq - 1], Reserve)
            if not reserved or any(
                isinstance(event, Commit) and event.reservation == seq for event in book.events
            ):
                raise untrusted(
                    "The round's reservation is not in the privacy ledger, or was answered before.",
                    "restart semc-client; a new reservation is a new charge",
                )
            self._append(book, Commit, {"reservation": seq, "outgoing_sha256": outgoing_sha256})
            return book.hashes[-1]

    def evaluate(self, study_digest: str, incoming_sha256: str, limits: Limits) -> bool:
        """Note that a study's weights are about to be measured on the test patients, before their data are opened.

        Args:
            study_digest: The study.
            incoming_sha256: SHA-256 (hex) of its weights.
            limits: As in :meth:`reserve`.

        Returns:
            False, and nothing is noted, where other weights of this study were measured before.

        Raises:
            SemcError: BUDGET_REFUSED where the site trained no round of the study, refused its last one, or has given
                all the answers its policy allows; POLICY_REFUSED, LEDGER_INVALID, DISK.
        """
        with self._opened() as book:
            check_usable(book.events, limits)
            allowed = may_evaluate(book.events, study_digest, incoming_sha256, limits)
            noted = any(
                isinstance(event, Evaluate) and event.study_digest == study_digest for event in book.events
            )
            if allowed and not noted:
                fields = {"study_digest": study_digest, "incoming_sha256": incoming_sha256}
                self._append(book, Evaluate, fields)
            return allowed

    def note_unprotected(self, study_digest: str) -> None:
        """Note, before its first round, that a study in mode none is trained on this hospital's patients.

        Raises:
            SemcError: LEDGER_INVALID, DISK.
        """
        with self._opened() as book:
            if study_digest not in unprotected(book.events):
                self._append(book, Unprotected, {"study_digest": study_digest})

    def close(self, reason: str) -> None:
        """Close the ledger for good: no round is ever charged again.

        Args:
            reason: For whoever reads the ledger later, 1 to 200 characters.

        Raises:
            SemcError: LEDGER_INVALID where it is closed already.
        """
        with self._opened() as book:
            if any(isinstance(event, Close) for event in book.events):
                raise untrusted("The privacy ledger is closed already.", "nothing is left to do")
            self._append(book, Close, {"reason": reason})

    def spent(self, study_digest: str | None = None) -> float:
        """Return epsilon (RDP, at the ledger's delta) of a study's reservations; left out: of all."""
        events = self.events()
        assert isinstance(events[0], Created)
        return rdp_epsilon(charges(events, study_digest), events[0].delta)

    def refused(self, study_digest: str) -> bool:
        """Tell whether the study's last request was refused."""
        asked = [
            event
            for event in self.events()
            if isinstance(event, Reserve | Refuse) and event.study_digest == study_digest
        ]
        return bool(asked) and isinstance(asked[-1], Refuse)

    def head(self) -> Head:
        """Return the last entry's number and hash."""
        with self._opened() as book:
            return book.head

    def contains(self, head: str) -> bool:
        """Tell whether a head that somebody noted earlier is in the chain; False proves a rollback of both files."""
        with self._opened() as book:
            return head in book.hashes

    def events(self) -> tuple[Event, ...]:
        """Return all entries, oldest first."""
        with self._opened() as book:
            return tuple(book.events)

    @contextmanager
    def _opened(self) -> Iterator[Book]:
        """Hold the ledger open; it must be this hospital's and hold what this process has seen in it."""
        with opened(self._place) as book:
            if self._site is not None and book.created.site != self._site:
                raise untrusted(
                    "The privacy ledger is another hospital's.", "correct `ledger` in the site file"
                )
            if self._seen is not None and book.hashes[self._seen.seq - 1 : self._seen.seq] != [
                self._seen.hash
            ]:
                raise untrusted("The privacy ledger has lost entries since this program opened it.")
            yield book
        self._seen = book.head

    def _append(self, book: Book, kind: type[Event], fields: dict[str, Any]) -> int:
        seq = len(book.hashes) + 1
        book.append(kind(seq=seq, at=self._clock(), previous=book.hashes[-1], **fields))
        return seq
