"""One message to every named site, and their answers as they come, until the deadline.

The rules are Flower's facts turned into waits: a site is asked for its reply only while it is online (asking
for an offline node's reply makes Flower delete it), one message number per pull (many inflate together in
memory), and what a site that goes offline had in hand is waited for, since the same SuperNode may return with
the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from server.inbound import Question
from server.pace import Pace
from server.receipts import Reason, Receipt, SiteState
from server.roster import Roster


@dataclass(frozen=True)
class Arrival:
    """An answer, unchecked, with the question it must fit."""

    question: Question
    reply: Message


@dataclass(frozen=True)
class Absence:
    """A site that gave no answer, and why."""

    site: str
    receipt: Receipt


class Exchange:
    """Sends every named site its message and gathers what comes back.

    Args:
        grid: Flower's way to the nodes.
        roster: The study's sites.
        content: What a site is sent, by its name.
        message_type: TRAIN or EVALUATE.
        group: Flower's group of the messages: the round.
        deadline_seconds: Longest time from the first message to the last answer.
        enough: Whether the answers so far make a quorum; offline sites are then waited for no longer than a
            grace.
        pace: Waits.
    """

    def __init__(
        self,
        grid: Grid,
        roster: Roster,
        content: Callable[[str], RecordDict],
        message_type: str,
        *,
        group: str,
        deadline_seconds: float,
        enough: Callable[[], bool],
        pace: Pace,
    ) -> None:
        self._grid, self._roster, self._content, self._type = grid, roster, content, message_type
        self._group, self._deadline, self._enough, self._pace = group, deadline_seconds, enough, pace
        self._open: dict[str, Question | None] = dict.fromkeys(roster.sites)

    def answers(self) -> Iterator[Arrival | Absence]:
        """Yield exactly one item per named site, in the order they come."""
        start = time.monotonic()
        while self._open:
            self._roster.refresh()
            yield from self._unable()
            self._send(time.monotonic() - start)
            yield from self._arrived()
            waited = time.monotonic() - start
            if waited >= self._deadline or self._only_lost_sites_remain():
                yield from self._absent()
                return
            if self._open:
                time.sleep(min(self._pace.next_poll(waited), max(0.0, self._deadline - waited)))

    def _unable(self) -> Iterator[Absence]:
        """Give up on sites whose handshake failed."""
        for site in list(self._open):
            receipt = self._roster.not_joined(site)
            if receipt is not None:
                del self._open[site]
                yield Absence(site, receipt)

    def _send(self, waited: float) -> None:
        """Send to every online site that has nothing yet; weights that several messages share are stored once."""
        nodes = {
            site: node
            for site, question in self._open.items()
            if question is None
            and self._roster.is_online(site)
            and (node := self._roster.node(site)) is not None
        }
        ttl = self._deadline - waited
        if not nodes or ttl <= 0:
            return
        messages = [
            Message(self._content(site), node, self._type, ttl=ttl, group_id=self._group)
            for site, node in nodes.items()
        ]
        identifiers = list(self._grid.push_messages(messages))
        if len(identifiers) != len(messages):  # Flower stored none, or does not say which
            identifiers = [""] * len(messages)
        for (site, node), identifier in zip(nodes.items(), identifiers, strict=True):
            self._open[site] = Question(site, node, identifier or "", self._type)

    def _arrived(self) -> Iterator[Arrival | Absence]:
        """Look once for the answer of each site that is online."""
        for site, question in list(self._open.items()):
            if question is None or not self._roster.is_online(site):
                continue
            if not question.message_id:
                del self._open[site]
                yield Absence(site, Receipt(SiteState.DROPPED, Reason.NOT_SENT))
                continue
            for reply in self._grid.pull_messages([question.message_id]):
                del self._open[site]
                yield Arrival(question, reply)
                break

    def _only_lost_sites_remain(self) -> bool:
        """Whether the quorum is met and nobody but long-offline sites is missing."""
        return self._enough() and all(
            not self._roster.is_online(site) and self._roster.offline_seconds(site) > self._pace.offline_grace
            for site in self._open
        )

    def _absent(self) -> Iterator[Absence]:
        """Close the round for everyone who has not answered."""
        for site, question in list(self._open.items()):
            del self._open[site]
            if question is None:
                receipt = Receipt(SiteState.DROPPED, Reason.ABSENT)
            elif self._roster.is_online(site):
                receipt = Receipt(SiteState.LATE, Reason.DEADLINE)
            else:
                receipt = Receipt(SiteState.DROPPED, Reason.OFFLINE)
            yield Absence(site, receipt)
