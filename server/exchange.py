"""One message to every named site, and their answers as they come, each until its own deadline.

The rules are Flower's facts turned into waits: a site is asked for its reply only while it is online (asking
for an offline node's reply makes Flower delete it), one message number per pull (many inflate together in
memory), and what a site that goes offline had in hand is waited for, since the same SuperNode may return with
the result. One that was started anew has forgotten its message and is sent it again; so is one whose message or
answer was lost. Whichever answer comes first counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from server.inbound import Question, stage_of
from server.pace import Pace
from server.pulls import Look, Pulls
from server.pushes import pushed
from server.receipts import Reason, Receipt, SiteState, Stage, not_in, receipt_of_error
from server.roster import Roster

_LONGEST_PAUSE_SECONDS: Final = 30.0
_TTL_BEYOND_SECONDS: Final = 300.0
"""How long Flower keeps message and answer beyond the deadline: an answer that came in time may be fetched after it."""


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

    questions: list[Question] = field(default_factory=list)
    """What it was sent and has not answered, the newest last; an older one may still be answered."""
    activation: str = ""
    """When the site's node had last been started, or come back, before the newest."""
    attempts: int = 0
    pending: bool = True
    """It is to be sent the message, the first time or again."""
    not_before: float = 0.0
    """When it may be sent the message again, seconds into the round."""
    looked: float = -1.0
    """When its answer was last looked for, seconds into the round."""
    last: Receipt | None = None
    """Why it was, or would have been, sent the message again."""
    given_up: bool = False
    """It is not sent the message any more."""


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
        count_restarts: Whether a new start of the site's node is one of these; else its deadline alone ends them.
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
        count_restarts: bool,
        repeat: Callable[[Receipt], bool],
        enough: Callable[[], bool],
        pace: Pace,
    ) -> None:
        self._grid, self._roster, self._content, self._type = grid, roster, content, message_type
        self._group, self._deadlines, self._enough, self._pace = group, deadlines, enough, pace
        self._retries, self._count_restarts, self._repeat = retries, count_restarts, repeat
        self._open = {site: _Part() for site in deadlines}
        self._start = 0.0
        self._site_of: dict[str, str] = {}
        self._pulls = Pulls(
            grid.pull_messages, lambda message_id: roster.is_online(self._site_of[message_id])
        )

    def answers(self) -> Iterator[Arrival | Absence | Repeat]:
        """Yield exactly one arrival or absence per asked site, in the order they come, and repeats before."""
        self._start = time.monotonic()
        try:
            while self._open:
                self._roster.refresh()
                yield from self._unable()
                self._send()
                yield from self._arrived()
                yield from self._came_back()
                yield from self._absent(everyone=self._only_lost_sites_remain())
        finally:
            self._pulls.close()

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
        """Send to every online site that is to be sent it; weights that several messages share are stored once."""
        waited = self._waited()
        nodes = {
            site: node
            for site, part in self._open.items()
            if part.pending
            and waited >= part.not_before
            and self._left(site) > 0
            and self._roster.is_online(site)
            and (node := self._roster.node(site)) is not None
        }
        if not nodes:
            return
        messages = [
            Message(
                self._content(site),
                node,
                self._type,
                ttl=self._left(site) + _TTL_BEYOND_SECONDS,
                group_id=self._group,
            )
            for site, node in nodes.items()
        ]
        identifiers = pushed(self._grid, messages)
        if len(identifiers) != len(messages):  # Flower stored none, or does not say which
            identifiers = [""] * len(messages)
        for (site, node), identifier in zip(nodes.items(), identifiers, strict=True):
            part = self._open[site]
            part.questions.append(Question(site, node, identifier or "", self._type))
            part.activation, part.pending = self._roster.activation(site), False
            part.attempts += 1
            self._site_of[identifier or ""] = site

    def _arrived(self) -> Iterator[Arrival | Absence | Repeat]:
        """Look for the answer of each site that is online, and take what has come until it is time to look again."""
        for site, part in list(self._open.items()):
            for question in list(part.questions):
                if not question.message_id:
                    part.questions.remove(question)
                    yield self._lost(site, part, not_in(SiteState.DROPPED, Reason.NOT_SENT, Stage.SEND))
                elif self._roster.is_online(site):
                    self._pulls.ask(question.message_id)
        nearest = min((self._left(site) for site in self._open), default=0.0)
        pause = self._pace.next_poll(self._waited())
        end = self._waited() + (min(pause, nearest) if nearest > 0 else pause)
        while self._open and (look := self._pulls.next(end - self._waited())) is not None:
            if look.error is not None:
                raise look.error
            yield from self._judged(look)

    def _judged(self, look: Look) -> Iterator[Arrival | Absence | Repeat]:
        """Pass an answer on; an error in its place may be worth another question."""
        site, reply = self._site_of[look.message_id], look.reply
        part = self._open.get(site)
        if part is None:
            return
        part.looked = self._waited()
        question = next((asked for asked in part.questions if asked.message_id == look.message_id), None)
        if question is None:
            return
        if look.unreadable:
            del self._open[site]
            yield Absence(site, not_in(SiteState.REFUSED, Reason.RECORDS, Stage.CHECK), part.attempts)
            return
        if reply is None:
            return
        if reply.has_error():
            is_newest = question is part.questions[-1]
            part.questions.remove(question)
            if part.pending or not is_newest:
                return  # it has been asked again since
            receipt = receipt_of_error(reply.error.code, reply.error.reason or "", stage_of(self._type))
            if self._repeat(receipt):
                yield self._lost(site, part, receipt)
                return
        del self._open[site]
        yield Arrival(question, reply, self._waited(), part.attempts)

    def _lost(self, site: str, part: _Part, receipt: Receipt) -> Absence | Repeat:
        """Send the message again a little later each time, as long as the study's retries last."""
        if part.attempts > self._retries:
            del self._open[site]
            return Absence(site, receipt, part.attempts)
        pause = min(2.0 ** (part.attempts - 1) * self._pace.retry, _LONGEST_PAUSE_SECONDS)
        part.pending, part.last, part.not_before = True, receipt, self._waited() + pause
        return Repeat(site, receipt)

    def _came_back(self) -> Iterator[Repeat]:
        """Send the message again where the node was started after it was sent: what it had in hand may be gone.

        Flower says the same of a node whose line was cut for more than a minute; that one still answers the first.
        """
        for site, part in list(self._open.items()):
            if part.pending or not part.questions or not self._roster.is_online(site):
                continue
            if self._roster.activation(site) != part.activation:
                receipt = not_in(SiteState.DROPPED, Reason.CAME_BACK, stage_of(self._type))
                part.last, part.activation = receipt, self._roster.activation(site)
                if self._count_restarts and part.attempts > self._retries:
                    part.given_up = True  # it is sent nothing more; what it has in hand may still be answered
                else:
                    part.pending, part.not_before = True, 0.0
                    yield Repeat(site, receipt)

    def _only_lost_sites_remain(self) -> bool:
        """Whether the quorum is met and nobody but long-offline sites is missing."""
        return self._enough() and all(
            not self._roster.is_there(site) and self._roster.offline_seconds(site) > self._pace.offline_grace
            for site in self._open
        )

    def _absent(self, *, everyone: bool) -> Iterator[Absence]:
        """Close the round for each site whose time is over, or for all."""
        for site, part in list(self._open.items()):
            if not everyone and not self._time_is_over(site, part):
                continue
            del self._open[site]
            yield Absence(site, self._why_absent(site, part), part.attempts)

    def _time_is_over(self, site: str, part: _Part) -> bool:
        """Whether a site's deadline has passed, and its answer was looked for since, unless that is impossible."""
        if self._left(site) > 0:
            return False
        if any(self._pulls.is_due(question.message_id) for question in part.questions):
            return False
        lasting = any(self._pulls.lasts(question.message_id) for question in part.questions)
        to_look = bool(part.questions) and self._roster.is_online(site) and not lasting
        return not to_look or part.looked >= self._deadlines[site]

    def _why_absent(self, site: str, part: _Part) -> Receipt:
        work = stage_of(self._type)
        if any(self._pulls.lasts(question.message_id) for question in part.questions):
            return not_in(SiteState.LATE, Reason.DEADLINE, Stage.UPLOAD)
        if part.last is not None and (part.pending or part.given_up):
            return part.last
        if not part.questions:
            return not_in(SiteState.DROPPED, Reason.ABSENT, Stage.JOIN)
        if self._roster.is_online(site):
            return not_in(SiteState.LATE, Reason.DEADLINE, work)
        return not_in(SiteState.DROPPED, Reason.OFFLINE, work)
