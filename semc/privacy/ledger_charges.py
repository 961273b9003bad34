"""What a ledger's entries add up to, and whether one more round fits; decided by RDP, from the entries alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from semc.privacy.accounting import Mechanism, rdp_epsilon
from semc.privacy.ledger_chain import Chain
from semc.privacy.ledger_events import Event, Reserve, Unprotected
from semc.privacy.limits import Limits


@dataclass(frozen=True)
class Reservation:
    """A round that is about to open data."""

    study_digest: str
    round_number: int
    incoming_sha256: str
    """SHA-256 (hex) of the weights it starts from."""
    mechanism: Mechanism


def charges(events: Iterable[Event], study_digest: str | None = None) -> list[Mechanism]:
    """Return what counts: every reservation, of one study or of all."""
    return [
        event.cost()
        for event in events
        if isinstance(event, Reserve) and study_digest in (None, event.study_digest)
    ]


def unprotected(events: Iterable[Event]) -> set[str]:
    """Return the studies in mode none that were trained on this hospital's patients."""
    return {event.study_digest for event in events if isinstance(event, Unprotected)}


def limit_broken(chain: Chain, reservation: Reservation, limits: Limits) -> Literal["total", "study"] | None:
    """Return whose limit history and proposal together break; the hospital's first."""
    proposal, created = reservation.mechanism, chain.created
    everything = [*charges(chain.events), proposal]
    if rdp_epsilon(everything, min(created.delta, limits.delta_total)) > min(
        created.epsilon_total, limits.epsilon_total
    ):
        return "total"
    of_study = [*charges(chain.events, reservation.study_digest), proposal]
    if rdp_epsilon(of_study, min(limits.delta, created.delta)) > limits.epsilon_study:
        return "study"
    return None
