"""The check of a training reply within its run: of the right form, and with a ledger head for this very question."""

from __future__ import annotations

from flwr.app import Message

from server.inbound import CheckedReply, Expected, Question, Refusal, check_training_reply
from server.ledger_heads import Asked, LedgerHeads
from server.receipts import Reason, SiteState, Stage, not_in
from server.spool import RoundQuestion


class UpdateCheck:
    """Judges the replies to one round's weights.

    Args:
        heads: What is known of the sites' ledgers; only private replies bring a head.
        question: The study, the round and the weights that were sent.
    """

    def __init__(self, heads: LedgerHeads, question: RoundQuestion) -> None:
        self._heads = heads
        self._asked = Asked(question.study_digest, question.round_number, question.incoming_sha256)

    def __call__(self, reply: Message, question: Question, expected: Expected) -> CheckedReply | Refusal:
        """Return the reply if it may be used; its head is then on record."""
        checked = check_training_reply(reply, question, expected)
        if isinstance(checked, Refusal) or checked.ledger_head is None:
            return checked
        if self._heads.accept(checked.site, checked.ledger_head, self._asked):
            return checked
        return Refusal(checked.site, not_in(SiteState.REFUSED, Reason.LEDGER, Stage.CHECK))
