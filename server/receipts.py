"""What became of every named site in every round: in, late, dropped, declined or refused, with a reason code.

A report that only says "round finished" hides the hospital that was left out. Each named site has exactly one
receipt per round, and a study in which any of them is not `in` ends as "complete on a subset".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from semc.protocol import RefusalCode
from semc.reporting.reasons import LEDGER_WENT_BACK, in_words


class SiteState(StrEnum):
    """How a site's part in a round ended."""

    IN = "in"
    """Its reply was valid and is part of the round."""
    LATE = "late"
    """It was online but had not answered by the deadline."""
    DROPPED = "dropped"
    """It was lost: never there, gone offline, or its answer did not get through."""
    DECLINED = "declined"
    """It answered that it will not or cannot take part; the reason is one of its refusal codes."""
    REFUSED = "refused"
    """It answered, and the coordinator did not accept the answer."""


class Reason(StrEnum):
    """Why a site is not `in`, where the coordinator says so; a declining site's own code is a RefusalCode."""

    DEADLINE = "L_DEADLINE"
    """The round's deadline passed."""
    ABSENT = "D_ABSENT"
    """The site was never online while the round was open."""
    OFFLINE = "D_OFFLINE"
    """The site went offline before its reply arrived."""
    NOT_SENT = "D_NOT_SENT"
    """The message could not be stored for the site."""
    UPLOAD = "D_UPLOAD"
    """The reply's upload broke off."""
    EXPIRED = "D_EXPIRED"
    """The message or its reply is no longer known to the SuperLink."""
    PROGRAM_LOST = "D_PROGRAM_LOST"
    """The site's training process ended in mid-task."""
    RECORDS = "R_RECORDS"
    """Not exactly the expected records."""
    METRICS = "R_METRICS"
    """A metric is unknown, missing, of the wrong form or not finite."""
    TENSORS = "R_TENSORS"
    """The tensors are not exactly those of the study's network, or not finite."""
    SENDER = "R_SENDER"
    """The reply does not belong to the message, or comes from another node."""
    NAME = "R_NAME"
    """The site's name is not the one its key is enrolled under, or is taken."""
    SCHEMA = "R_SCHEMA"
    """The site builds another network from the study."""
    VERSION = "R_VERSION"
    """The site runs another version of Flower or of this software."""
    LEDGER = LEDGER_WENT_BACK
    """The head of the site's privacy ledger was already given for another round: the ledger went back."""


class FlowerError(IntEnum):
    """Flower's codes of an error reply, as far as they decide a receipt (pinned by a contract test)."""

    CLIENT_APP_RAISED_EXCEPTION = 2
    MESSAGE_UNAVAILABLE = 3
    REPLY_MESSAGE_UNAVAILABLE = 4
    NODE_UNAVAILABLE = 5
    INVALID_FAB = 7
    CLIENT_APP_CRASHED = 8


@dataclass(frozen=True)
class Receipt:
    """One site's part in one round."""

    state: SiteState
    reason: str = ""
    """A Reason or RefusalCode; empty where the state is `in`."""


@dataclass(frozen=True)
class RoundReceipt:
    """Every named site's part in one round."""

    round_number: int
    sites: Mapping[str, Receipt]

    @property
    def num_in(self) -> int:
        """Sites whose reply counts."""
        return sum(receipt.state is SiteState.IN for receipt in self.sites.values())

    @property
    def complete(self) -> bool:
        """Whether every named site is in."""
        return self.num_in == len(self.sites)

    def missing(self) -> str:
        """Return the sites that are not in, as text: `north dropped (D_OFFLINE), south late (L_DEADLINE)`."""
        return ", ".join(
            f"{site} {receipt.state} ({in_words(receipt.reason)})"
            for site, receipt in sorted(self.sites.items())
            if receipt.state is not SiteState.IN
        )


_ERRORS: Final[Mapping[int, Receipt]] = {
    FlowerError.INVALID_FAB: Receipt(SiteState.DECLINED, RefusalCode.STUDY),
    FlowerError.MESSAGE_UNAVAILABLE: Receipt(SiteState.DROPPED, Reason.UPLOAD),
    FlowerError.REPLY_MESSAGE_UNAVAILABLE: Receipt(SiteState.DROPPED, Reason.EXPIRED),
    FlowerError.NODE_UNAVAILABLE: Receipt(SiteState.DROPPED, Reason.OFFLINE),
    FlowerError.CLIENT_APP_CRASHED: Receipt(SiteState.DROPPED, Reason.PROGRAM_LOST),
}


def receipt_of_error(code: int, reason: str) -> Receipt:
    """Return the receipt of an error reply.

    Args:
        code: Flower's error code.
        reason: The error's text; only a refusal code of the protocol is repeated, anything else is not
            trusted.
    """
    if code == FlowerError.CLIENT_APP_RAISED_EXCEPTION and reason in list(RefusalCode):
        return Receipt(SiteState.DECLINED, reason)
    return _ERRORS.get(code, Receipt(SiteState.DECLINED, RefusalCode.INTERNAL))
