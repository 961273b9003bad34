"""The check of a training reply within its run: of the right form, and with a ledger head for this very question."""

from __future__ import annotations

import hashlib

from flwr.app import Message

from server.inbound import CheckedReply, Expected, Question, Refusal, check_training_reply
from server.ledger_heads import Asked, LedgerHeads
from server.receipts import Reason, Receipt, SiteState


class UpdateCheck:
    """Judges the replies to one round's weights.

    Args:
        heads: What is known of the sites' ledgers; only private replies bring a head.
        study_digest: The study.
        round_number: The round.
        payload: The weights that were sent.
    """

    def __init__(self, heads: LedgerHeads, study_digest: str, round_number: int, payload: bytes) -> None:
        self._heads = heads
        self._asked = Asked(study_digest, round_number, hashlib.sha256(payload).hexdigest())

    def __call__(self, reply: Message, question: Question, expected: Expected) -> CheckedReply | Refusal:
        """Return the reply if it may be used; its head is then on record."""
        checked = check_training_reply(reply, question, expected)
        if isinstance(checked, Refusal) or checked.ledger_head is None:
            return checked
        if self._heads.accept(checked.site, checked.ledger_head, self._asked):
            return checked
        return Refusal(checked.site, Receipt(SiteState.REFUSED, Reason.LEDGER))
