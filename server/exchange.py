"""One message to every named site, and their answers as they come, each until its own deadline.

The rules are Flower's facts turned into waits: a site is asked for its reply only while it is online (asking
for an offline node's reply makes Flower delete it), one message number per pull (many inflate together in
memory), and what a site that goes offline had in hand is waited for, since the same SuperNode may return with
the result. One that was started anew has forgotten its message and is sent it again; so is one whose message or
answer was lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from server.inbound import Question, stage_of
from server.pace import Pace
from server.receipts import Reason, Receipt, SiteState, Stage, not_in, receipt_of_error
from server.roster import Roster

_LONGEST_PAUSE_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Arrival:
    """An answer, unchecked, with the question it must fit."""

    question: Question
    reply: Message
    seconds: float
    """From the beginning of the round."""
    attempts: int
    """How often the site was sent the message."""


@dataclass(frozen=True)
class Absence:
    """A site that gave no answer, and why."""

    site: str
    receipt: Receipt
    attempts: int


@dataclass(frozen=True)
class Repeat:
    """A site that is sent its message again, and why."""

    site: str
    receipt: Receipt


@dataclass
class _Part:
    """How the exchange stands with one site."""

    question: Question | None = None
    """What it was sent and has not answered."""
    activation: str = ""
    """When the site's node had last been started before that."""
    attempts: int = 0
    not_before: float = 0.0
    """When it may be sent the message again, seconds into the round."""


class Exchange:
    """Sends sites their message and gathers what comes back.

    Args:
        grid: Flower's way to the nodes.
        roster: The study's sites.
        content: What a site is sent, by its name.
        message_type: TRAIN or EVALUATE.
        group: Flower's group of the messages: the round.
        deadlines: The sites that are asked, each with the longest time from the first message to its answer, seconds.
        retries: How often a site is sent a message again that was lost, or that it could not answer.
        repeat: Whether what came instead of an answer is worth that.
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
        deadlines: Mapping[str, float],
        retries: int,
        repeat: Callable[[Receipt], bool],
        enough: Callable[[], bool],
        pace: Pace,
    ) -> None:
        self._grid, self._roster, self._content, self._type = grid, roster, content, message_type
        self._group, self._deadlines, self._enough, self._pace = group, deadlines, enough, pace
        self._retries, self._repeat = retries, repeat
        self._open = {site: _Part() for site in deadlines}
        self._start = 0.0

    def answers(self) -> Iterator[Arrival | Absence | Repeat]:
        """Yield exactly one arrival or absence per asked site, in the order they come, and repeats before."""
        self._start = time.monotonic()
        while self._open:
            self._roster.refresh()
            yield from self._unable()
            self._send()
            yield from self._arrived()
            yield from self._started_anew()
            everyone = self._only_lost_sites_remain()
            yield from self._absent(everyone)
            if self._open:
                left = min(self._left(site) for site in self._open)
                time.sleep(min(self._pace.next_poll(self._waited()), max(0.0, left)))

    def _waited(self) -> float:
        return time.monotonic() - self._start

    def _left(self, site: str) -> float:
        return self._deadlines[site] - self._waited()

    def _unable(self) -> Iterator[Absence]:
        """Give up on sites whose handshake failed."""
        for site, part in list(self._open.items()):
            receipt = self._roster.not_joined(site)
            if receipt is not None:
                del self._open[site]
                yield Absence(site, receipt, part.attempts)

    def _send(self) -> None:
        """Send to every online site that has nothing yet; weights that several messages share are stored once."""
        waited = self._waited()
        nodes = {
            site: node
            for site, part in self._open.items()
            if part.question is None
            and waited >= part.not_before
            and self._left(site) > 0
            and self._roster.is_online(site)
            and (node := self._roster.node(site)) is not None
        }
        if not nodes:
            return
        messages = [
            Message(self._content(site), node, self._type, ttl=self._left(site), group_id=self._group)
            for site, node in nodes.items()
        ]
        identifiers = list(self._grid.push_messages(messages))
        if len(identifiers) != len(messages):  # Flower stored none, or does not say which
            identifiers = [""] * len(messages)
        for (site, node), identifier in zip(nodes.items(), identifiers, strict=True):
            part = self._open[site]
            part.question = Question(site, node, identifier or "", self._type)
            part.activation = self._roster.activation(site)
            part.attempts += 1

    def _arrived(self) -> Iterator[Arrival | Absence | Repeat]:
        """Look once for the answer of each site that is online."""
        for site, part in list(self._open.items()):
            question = part.question
            if question is None or not self._roster.is_online(site):
                continue
            if not question.message_id:
                yield self._lost(site, part, not_in(SiteState.DROPPED, Reason.NOT_SENT, Stage.SEND))
                continue
            for reply in self._grid.pull_messages([question.message_id]):
                yield self._judged(site, part, question, reply)
                break

    def _judged(
        self, site: str, part: _Part, question: Question, reply: Message
    ) -> Arrival | Absence | Repeat:
        if reply.has_error():
            receipt = receipt_of_error(reply.error.code, reply.error.reason or "", stage_of(self._type))
            if self._repeat(receipt):
                return self._lost(site, part, receipt)
        del self._open[site]
        return Arrival(question, reply, self._waited(), part.attempts)

    def _lost(self, site: str, part: _Part, receipt: Receipt) -> Absence | Repeat:
        """Send the message again a little later each time, as long as the study's retries last."""
        if part.attempts > self._retries:
            del self._open[site]
            return Absence(site, receipt, part.attempts)
        part.question = None
        part.not_before = self._waited() + min(
            2.0 ** (part.attempts - 1) * self._pace.retry, _LONGEST_PAUSE_SECONDS
        )
        return Repeat(site, receipt)

    def _started_anew(self) -> Iterator[Repeat]:
        """Send the message again where the node was started after it was sent: what it had in hand is gone."""
        for site, part in self._open.items():
            if part.question is None or not self._roster.is_online(site):
                continue
            if self._roster.activation(site) != part.activation:
                receipt = not_in(SiteState.DROPPED, Reason.RESTARTED, stage_of(self._type))
                part.question, part.not_before = None, 0.0
                yield Repeat(site, receipt)

    def _only_lost_sites_remain(self) -> bool:
        """Whether the quorum is met and nobody but long-offline sites is missing."""
        return self._enough() and all(
            not self._roster.is_online(site) and self._roster.offline_seconds(site) > self._pace.offline_grace
            for site in self._open
        )

    def _absent(self, everyone: bool) -> Iterator[Absence]:
        """Close the round for each site whose time is over, or for all."""
        for site, part in list(self._open.items()):
            if not everyone and self._left(site) > 0:
                continue
            del self._open[site]
            if part.question is None and part.attempts == 0:
                receipt = not_in(SiteState.DROPPED, Reason.ABSENT, Stage.JOIN)
            elif part.question is not None and self._roster.is_online(site):
                receipt = not_in(SiteState.LATE, Reason.DEADLINE, stage_of(self._type))
            else:
                receipt = not_in(SiteState.DROPPED, Reason.OFFLINE, stage_of(self._type))
            yield Absence(site, receipt, part.attempts)
