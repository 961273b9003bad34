"""What a ledger's entries add up to, and whether one more round fits; decided by RDP, from the entries alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from semc.exit_codes import ExitCode, SemcError
from semc.privacy.accounting import Mechanism, rdp_epsilon
from semc.privacy.ledger_chain import Chain
from semc.privacy.ledger_events import Close, Commit, Evaluate, Event, Refuse, Reserve, Unprotected
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


def check_usable(events: Iterable[Event], limits: Limits) -> None:
    """Refuse whatever a study with patient-level privacy asks of a ledger that cannot serve it.

    Raises:
        SemcError: LEDGER_INVALID where it is closed, POLICY_REFUSED where patients were trained on without protection
            and the policy does not accept that.
    """
    entries = list(events)
    if any(isinstance(event, Close) for event in entries):
        raise SemcError(
            ExitCode.LEDGER_INVALID,
            "The privacy ledger is closed.",
            "it was closed for good: no private study may run",
        )
    if not limits.accept_unprotected_history and unprotected(entries):
        raise SemcError(
            ExitCode.POLICY_REFUSED,
            "A study in mode none was trained on this hospital's patients, which no bound covers.",
            "only the policy's accept_unprotected_history allows patient-level privacy after it",
        )


def may_evaluate(events: Iterable[Event], study_digest: str, incoming_sha256: str, limits: Limits) -> bool:
    """Tell whether a study's weights may be measured on the test patients.

    Args:
        events: The ledger's entries.
        study_digest: The study.
        incoming_sha256: Of its weights.
        limits: The most answers about the test patients, over all studies.

    Returns:
        False where other weights of this study were measured before.

    Raises:
        SemcError: BUDGET_REFUSED where the site trained no round of the study, refused its last one, or has given all
            the answers its policy allows.
    """
    entries = list(events)
    of_study = [
        event
        for event in entries
        if isinstance(event, Reserve | Refuse) and event.study_digest == study_digest
    ]
    answered = {event.reservation for event in entries if isinstance(event, Commit)}
    trained = any(event.seq in answered for event in of_study)
    if not trained or isinstance(of_study[-1], Refuse):
        raise SemcError(
            ExitCode.BUDGET_REFUSED,
            "This site took part in no round of this study, or refused one, so it answers nothing about it.",
            "`semc-client ledger show` tells what is spent",
        )
    given = [event for event in entries if isinstance(event, Evaluate)]
    earlier = [event.incoming_sha256 for event in given if event.study_digest == study_digest]
    if earlier:
        return incoming_sha256 in earlier
    if len(given) >= limits.max_evaluations:
        raise SemcError(
            ExitCode.BUDGET_REFUSED,
            f"This site has answered {len(given)} times about its test patients, all that its policy allows.",
            "raise disclosure.max_evaluations in policy.yaml if the hospital agrees",
        )
    return True


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
