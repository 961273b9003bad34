"""What became of every named site in every round: in, or not, at which stage and why.

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
    """It answered that it will not take part in this study; the reason is one of its refusal codes."""
    FAILED = "failed"
    """It tried and could not: its disk, its device, its software; the reason is one of its refusal codes."""
    REFUSED = "refused"
    """It answered, and the coordinator did not accept the answer."""


class Stage(StrEnum):
    """How far a site came in a round it is not part of."""

    JOIN = "join"
    """Not known as a site of this study: never online, or turned away in the handshake."""
    SEND = "send"
    """Its message could not be handed over."""
    TRAIN = "train"
    """It had the round's message, or could have fetched it."""
    EVALUATE = "evaluate"
    """The same in the closing evaluation."""
    UPLOAD = "upload"
    """Its answer began to arrive."""
    CHECK = "check"
    """Its answer arrived and was not accepted."""


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
    CAME_BACK = "D_CAME_BACK"
    """The site's network process was started anew, or came back after a long cut, with the message in hand."""
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


_STAGES: Final[Mapping[str, Stage]] = {
    Reason.ABSENT: Stage.JOIN,
    Reason.NOT_SENT: Stage.SEND,
    Reason.EXPIRED: Stage.SEND,
    Reason.UPLOAD: Stage.UPLOAD,
    **{reason: Stage.CHECK for reason in Reason if reason.startswith("R_")},
}


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
    stage: str = ""
    """A Stage; empty where the state is `in`."""
    weight: float | None = None
    """Its weight in the mean, where it is `in` a round that trains."""
    payload_sha256: str = ""
    """SHA-256 of the tensors it sent, where it is `in` a round that trains."""
    seconds: float | None = None
    """From the beginning of the round to its answer."""
    attempts: int = 0
    """How often it was sent the round's message."""


def not_in(state: SiteState, reason: str, stage: Stage) -> Receipt:
    """Return the receipt of a site that is not in.

    Args:
        state: Any but `in`.
        reason: A Reason or RefusalCode; some say the stage themselves.
        stage: Where the site stood if the reason does not say it.
    """
    return Receipt(state, reason, _STAGES.get(reason, stage))


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
        """Return the sites that are not in, as text: `north dropped at upload (D_UPLOAD), ...`."""
        return ", ".join(
            f"{site} {receipt.state} at {receipt.stage} ({in_words(receipt.reason)})"
            for site, receipt in sorted(self.sites.items())
            if receipt.state is not SiteState.IN
        )


_ERRORS: Final[Mapping[int, tuple[SiteState, str]]] = {
    FlowerError.INVALID_FAB: (SiteState.DECLINED, RefusalCode.STUDY),
    FlowerError.MESSAGE_UNAVAILABLE: (SiteState.DROPPED, Reason.UPLOAD),
    FlowerError.REPLY_MESSAGE_UNAVAILABLE: (SiteState.DROPPED, Reason.EXPIRED),
    FlowerError.NODE_UNAVAILABLE: (SiteState.DROPPED, Reason.OFFLINE),
    FlowerError.CLIENT_APP_CRASHED: (SiteState.DROPPED, Reason.PROGRAM_LOST),
}
_FAILURES: Final = frozenset(
    {RefusalCode.DEVICE, RefusalCode.DISK, RefusalCode.DIVERGED, RefusalCode.INTERNAL}
)
"""What a site says that wanted to take part and could not."""


def receipt_of_error(code: int, reason: str, stage: Stage) -> Receipt:
    """Return the receipt of an error reply.

    Args:
        code: Flower's error code.
        reason: The error's text; only a refusal code of the protocol is repeated, anything else is not
            trusted.
        stage: What the site had been asked to do.
    """
    if code in _ERRORS:
        return not_in(*_ERRORS[code], stage)
    known = code == FlowerError.CLIENT_APP_RAISED_EXCEPTION and reason in list(RefusalCode)
    refusal = RefusalCode(reason) if known else RefusalCode.INTERNAL
    return not_in(SiteState.FAILED if refusal in _FAILURES else SiteState.DECLINED, refusal, stage)


def worth_repeating(receipt: Receipt, *, private: bool) -> bool:
    """Tell whether the same message may succeed a moment later: it was lost, or the site could not answer just then.

    Args:
        receipt: What came instead of an answer.
        private: Mode patient_dp: there only what was lost is repeated, since an attempt may cost privacy budget.
    """
    if receipt.state is SiteState.DROPPED:
        return True
    return receipt.state is SiteState.FAILED and receipt.reason != RefusalCode.DIVERGED and not private
