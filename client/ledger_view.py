"""What a hospital's ledger says, for people and scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from client.privacy_gate import ledger_place, policy_of, require_ledger
from semc.config import SiteConfig, SitePolicy
from semc.privacy.accounting import Mechanism, prv_epsilon, rdp_epsilon
from semc.privacy.ledger import charges
from semc.privacy.ledger_charges import unprotected
from semc.privacy.ledger_events import Close, Commit, Created, Event, Refuse, Reserve, Unprotected


@dataclass(frozen=True)
class StudySpending:
    """One study's part."""

    study: str
    """First 12 digits of its digest."""
    charged: int
    """Rounds that were reserved."""
    answered: int
    refused: int
    epsilon: float
    """RDP, at the ledger's delta."""
    epsilon_prv: float | None


@dataclass(frozen=True)
class LedgerView:
    """A ledger at one moment."""

    site: str
    made: str
    patients: int
    delta: float
    limit: float
    """The stricter of the ledger's promise and the policy."""
    epsilon: float
    """Spent in total, RDP: this decides."""
    epsilon_prv: float | None
    """Spent in total, PRV: tighter, for information."""
    left: float
    """0 where the ledger is closed."""
    studies: tuple[StudySpending, ...]
    unprotected: tuple[str, ...]
    """Studies in mode none, first 12 digits."""
    closed: str | None
    differences: tuple[str, ...]
    """Where the policy says another number than the ledger's making, and which holds."""
    entries: int
    head: str

    def to_json(self) -> str:
        """Return the view as one JSON object."""
        return json.dumps(asdict(self), indent=2)

    def print_text(self) -> None:
        """Print the view for people."""
        from rich.console import Console
        from rich.table import Table

        lines = [
            f"site '{self.site}', made {self.made}, {self.patients} patients, delta {self.delta:g}",
            f"spent   epsilon {self.epsilon:.2f} of {self.limit:.2f} (RDP, decides; PRV {shown(self.epsilon_prv)})",
            f"left    {self.left:.2f}" if self.closed is None else "left    none (closed for good)",
            *self.differences,
        ]
        table = Table(
            "study", "charged", "answered", "refused", "epsilon (RDP)", "PRV", box=None, pad_edge=False
        )
        for row in self.studies:
            counts = map(str, (row.charged, row.answered, row.refused))
            table.add_row(row.study, *counts, f"{row.epsilon:.2f}", shown(row.epsilon_prv))
        console = Console(highlight=False, markup=False)
        for line in lines:
            console.print(line)
        if self.studies:
            console.print(table)
        for study in self.unprotected:
            console.print(f"study {study} was trained without patient-level privacy: no bound covers it")
        if self.closed is not None:
            console.print(f"closed for good: {self.closed}")
        console.print(f"head    entry {self.entries}")
        console.print("        " + " ".join(self.head[start : start + 8] for start in range(0, 64, 8)))


@dataclass(frozen=True)
class History:
    """What a plan needs to know of a hospital."""

    policy: SitePolicy | None
    spent: tuple[Mechanism, ...]
    limit: float | None
    """epsilon for everything, None where nothing sets one."""
    delta: float | None
    closed: bool = False
    unprotected: bool = False
    """Studies in mode none were trained there."""


def shown(epsilon: float | None) -> str:
    """Return epsilon with two decimals, or a dash."""
    return "–" if epsilon is None else f"{epsilon:.2f}"


def view(site: SiteConfig) -> LedgerView:
    """Read a hospital's ledger.

    Raises:
        SemcError: LEDGER_INVALID where it is missing or cannot be trusted; CONFIG_INVALID where the policy is damaged.
    """
    ledger = require_ledger(site)
    events, head = ledger.events(), ledger.head()
    created = events[0]
    assert isinstance(created, Created)
    policy = policy_of(site)
    delta, limit = _bounds(created, policy)
    closed = _closed(events)
    everything = charges(events)
    spent = rdp_epsilon(everything, delta)
    return LedgerView(
        site=created.site,
        made=f"{created.at:%Y-%m-%d}",
        patients=created.patients,
        delta=delta,
        limit=limit,
        epsilon=spent,
        epsilon_prv=prv_epsilon(everything, delta),
        left=max(0.0, limit - spent) if closed is None else 0.0,
        studies=tuple(_studies(events, delta)),
        unprotected=tuple(event.study_digest[:12] for event in events if isinstance(event, Unprotected)),
        closed=closed,
        differences=tuple(_differences(created, policy)),
        entries=head.seq,
        head=head.hash,
    )


def history_of(site: SiteConfig) -> History:
    """Return policy and past charges of a hospital; one without a ledger has none.

    Raises:
        SemcError: LEDGER_INVALID where the ledger cannot be trusted; CONFIG_INVALID where the policy is damaged.
    """
    policy = policy_of(site)
    budget = policy.budget if policy is not None else None
    if not ledger_place(site).exists():
        limit, delta = (budget.epsilon_total, budget.delta) if budget is not None else (None, None)
        return History(policy, (), limit, delta)
    events = require_ledger(site).events()
    assert isinstance(events[0], Created)
    smallest, least = _bounds(events[0], policy)
    return History(
        policy,
        tuple(charges(events)),
        least,
        smallest,
        closed=_closed(events) is not None,
        unprotected=bool(unprotected(events)),
    )


def _closed(events: tuple[Event, ...]) -> str | None:
    """Return why the ledger was closed, None where it is open."""
    return next((event.reason for event in events if isinstance(event, Close)), None)


def _bounds(created: Created, policy: SitePolicy | None) -> tuple[float, float]:
    """Return the delta and the epsilon that count: the stricter of the ledger's and the policy's."""
    budget = policy.budget if policy is not None else None
    if budget is None:
        return created.delta, created.epsilon_total
    return min(created.delta, budget.delta), min(created.epsilon_total, budget.epsilon_total)


def _differences(created: Created, policy: SitePolicy | None) -> Iterator[str]:
    """Yield a line for each number that differs: the stricter bound holds, and today's number of patients."""
    if policy is None:
        return
    says: dict[str, tuple[float, float, float]] = {
        "patients": (policy.patients, created.patients, policy.patients)
    }
    if policy.budget is not None:
        delta, limit = _bounds(created, policy)
        says["epsilon"] = (policy.budget.epsilon_total, created.epsilon_total, limit)
        says["delta"] = (policy.budget.delta, created.delta, delta)
    for name, (stated, promised, holds) in says.items():
        if stated != promised:
            yield f"{name}: policy says {stated:.9g}, the ledger promised {promised:.9g}: {holds:.9g} holds"


def _studies(events: tuple[Event, ...], delta: float) -> list[StudySpending]:
    reserved = {event.seq: event.study_digest for event in events if isinstance(event, Reserve)}
    refused = [event.study_digest for event in events if isinstance(event, Refuse)]
    answered = [reserved[event.reservation] for event in events if isinstance(event, Commit)]
    return [
        StudySpending(
            study=digest[:12],
            charged=list(reserved.values()).count(digest),
            answered=answered.count(digest),
            refused=refused.count(digest),
            epsilon=rdp_epsilon(charges(events, digest), delta),
            epsilon_prv=prv_epsilon(charges(events, digest), delta),
        )
        for digest in dict.fromkeys([*reserved.values(), *refused])
    ]
