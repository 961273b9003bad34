"""One round's answers: each is checked on arrival, used or refused, and entered in the round's receipt."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from flwr.app import Message

from server.events import Event, EventLog
from server.exchange import Absence, Arrival
from server.inbound import CheckedReply, Expected, Question, Refusal
from server.receipts import Receipt, RoundReceipt, SiteState

Check = Callable[[Message, Question, Expected], CheckedReply | Refusal]


class Gathering:
    """Builds the receipt of one exchange.

    Args:
        round_number: The round.
        check: How a reply is judged.
        expected: What a valid reply looks like.
        events: Told of every site.
    """

    def __init__(self, round_number: int, check: Check, expected: Expected, events: EventLog) -> None:
        self._round, self._check, self._expected, self._events = round_number, check, expected, events
        self._receipts: dict[str, Receipt] = {}

    def receipt(self) -> RoundReceipt:
        """Return the receipt as it stands, sites in the order of their names."""
        return RoundReceipt(self._round, dict(sorted(self._receipts.items())))

    def valid(self, answers: Iterator[Arrival | Absence]) -> Iterator[CheckedReply]:
        """Yield each valid reply; the site is `in` once the caller has come back for the next."""
        for answer in answers:
            if isinstance(answer, Absence):
                self._enter(answer.site, answer.receipt, None)
                continue
            checked = self._check(answer.reply, answer.question, self._expected)
            if isinstance(checked, Refusal):
                self._enter(checked.site, checked.receipt, None)
                continue
            yield checked
            self._enter(checked.site, Receipt(SiteState.IN), checked.metrics.train_loss)

    def _enter(self, site: str, receipt: Receipt, train_loss: float | None) -> None:
        self._receipts[site] = receipt
        self._events.write(
            Event.REPLY,
            round=self._round,
            site=site,
            state=receipt.state,
            reason=receipt.reason,
            train_loss=train_loss,
        )
