"""One round's answers: each is checked on arrival, kept on disk or refused, and entered in the round's receipt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from flwr.app import Message

from semc.protocol import TRAIN_LOSS
from server.events import Event, EventLog
from server.exchange import Absence, Arrival, Repeat
from server.inbound import CheckedReply, Expected, Question, Refusal
from server.receipts import Receipt, RoundReceipt, SiteState
from server.spool import Spool, SpooledReply

Check = Callable[[Message, Question, Expected], CheckedReply | Refusal]


class Gathering:
    """Builds the receipt of one exchange; what the spool already holds is in.

    Args:
        round_number: The round.
        check: How a reply is judged.
        expected: What a valid reply looks like.
        weights: Weight of each site in the mean; empty in an evaluation.
        spool: Begun with the round's question.
        events: Told of every site.
        timed: Whether the round begins now; else times say nothing about a site.
    """

    def __init__(
        self,
        round_number: int,
        check: Check,
        expected: Expected,
        weights: Mapping[str, float],
        spool: Spool,
        events: EventLog,
        *,
        timed: bool,
    ) -> None:
        self._timed = timed
        self._round, self._check, self._expected = round_number, check, expected
        self._weights, self._spool, self._events = weights, spool, events
        self._receipts: dict[str, Receipt] = {}
        for kept in spool.replies.values():
            self._enter_kept(kept)

    def receipt(self) -> RoundReceipt:
        """Return the receipt as it stands, sites in the order of their names."""
        return RoundReceipt(self._round, dict(sorted(self._receipts.items())))

    def gather(self, answers: Iterable[Arrival | Absence | Repeat]) -> None:
        """Check and keep every answer, until there are no more.

        Raises:
            SemcError: DISK where a valid answer cannot be kept.
        """
        for answer in answers:
            match answer:
                case Repeat():
                    self._tell(Event.REPEAT, answer.site, answer.receipt)
                case Absence():
                    self._enter(answer.site, replace(answer.receipt, attempts=answer.attempts))
                case Arrival():
                    self._take(answer)

    def _take(self, arrival: Arrival) -> None:
        checked = self._check(arrival.reply, arrival.question, self._expected)
        seconds = arrival.seconds if self._timed else None
        if isinstance(checked, Refusal):
            self._enter(checked.site, replace(checked.receipt, seconds=seconds, attempts=arrival.attempts))
        else:
            self._enter_kept(self._spool.keep(checked, seconds, arrival.attempts))

    def _enter_kept(self, kept: SpooledReply) -> None:
        receipt = Receipt(
            SiteState.IN,
            weight=self._weights.get(kept.site),
            payload_sha256=kept.payload_sha256,
            seconds=kept.seconds,
            attempts=kept.attempts,
        )
        self._enter(kept.site, receipt, kept.told.get(TRAIN_LOSS))

    def _enter(self, site: str, receipt: Receipt, train_loss: float | None = None) -> None:
        self._receipts[site] = receipt
        self._tell(Event.REPLY, site, receipt, train_loss=train_loss)

    def _tell(self, event: Event, site: str, receipt: Receipt, **more: object) -> None:
        self._events.write(
            event,
            round=self._round,
            site=site,
            state=receipt.state,
            stage=receipt.stage,
            reason=receipt.reason,
            **more,
        )
