"""The one door in: a reply is checked completely before anything of it reaches the aggregation.

Flower's own strategies average whatever arrives: NaN, int8, another shape, a claimed 1e12 examples. Here a
reply must answer the message it names, come from the node it was sent to, hold exactly the records and metric
names of the protocol, and, for training, exactly the tensors of the study's network (semc/wire.py reads them;
nothing is ever unpickled or passed to numpy.load). What fails is refused with a code and named in the round's
receipt.

============== ============================== ============================================
privacy mode   training reply                 evaluation reply
============== ============================== ============================================
none           tensors, metrics               metrics
patient_dp     tensors, the ledger's head     rates of the test patients, or none of them
============== ============================== ============================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord

from semc import protocol
from semc.wire import WireDtype, WireError, unpack
from server.receipts import Reason, Receipt, SiteState, Stage, not_in, receipt_of_error
from server.site_metrics import SiteMetrics, read_disclosed, read_metrics

_HEAD: Final = re.compile(r"[0-9a-f]{64}")
_STAGES: Final[Mapping[str, Stage]] = {
    MessageType.QUERY: Stage.JOIN,
    MessageType.TRAIN: Stage.TRAIN,
    MessageType.EVALUATE: Stage.EVALUATE,
}


@dataclass(frozen=True)
class Expected:
    """What a valid reply of this study looks like."""

    shapes: Mapping[str, tuple[int, ...]]
    """Shape of every tensor a site sends back by name."""
    wire_dtype: WireDtype
    num_classes: int
    private: bool = False
    """Privacy mode patient_dp."""


@dataclass(frozen=True)
class CheckedReply:
    """A reply that may be used."""

    site: str
    metrics: SiteMetrics
    told: Mapping[str, Any]
    """The same as it was told: names and plain values of the protocol."""
    payload: bytes | None
    """The tensors as a safetensors file, already validated; None for an evaluation."""
    ledger_head: str | None = None
    """Mode patient_dp, training: SHA-256 of the last entry of the site's ledger."""


@dataclass(frozen=True)
class Refusal:
    """A reply that may not be used, or an error in its place."""

    site: str
    receipt: Receipt


class UnacceptableError(Exception):
    """A check of something received failed; carries the code for the receipt."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True)
class Question:
    """A message that was sent, as far as its answer must match it."""

    site: str
    node_id: int
    message_id: str
    message_type: str


def check_training_reply(reply: Message, question: Question, expected: Expected) -> CheckedReply | Refusal:
    """Check an answer to a TRAIN message: one array record, and by mode one metric or config record."""
    return _checked(reply, question, expected, with_tensors=True)


def check_evaluation_reply(reply: Message, question: Question, expected: Expected) -> CheckedReply | Refusal:
    """Check an answer to an EVALUATE message: one metric record."""
    return _checked(reply, question, expected, with_tensors=False)


def _checked(
    reply: Message, question: Question, expected: Expected, *, with_tensors: bool
) -> CheckedReply | Refusal:
    try:
        if reply.has_error():
            stage = stage_of(question.message_type)
            return Refusal(question.site, receipt_of_error(reply.error.code, reply.error.reason or "", stage))
        check_sender(reply, question)
        content = reply.content
        if expected.private and with_tensors and protocol.METRICS in content:
            raise UnacceptableError(Reason.METRICS)  # it could only tell of training images
        told = protocol.CONFIG if expected.private and with_tensors else protocol.METRICS
        if set(content) != ({told, protocol.ARRAYS} if with_tensors else {told}):
            raise UnacceptableError(Reason.RECORDS)
        payload = _read_payload(content[protocol.ARRAYS], expected) if with_tensors else None
        if told == protocol.CONFIG:
            return CheckedReply(question.site, SiteMetrics(), {}, payload, _read_head(content[told]))
        values = _values(content[told])
        metrics = read_told(values, expected)
    except UnacceptableError as error:
        return Refusal(question.site, not_in(SiteState.REFUSED, error.reason, Stage.CHECK))
    return CheckedReply(question.site, metrics, values, payload)


def stage_of(message_type: str) -> Stage:
    """Return what a site is asked to do by a message."""
    return _STAGES[message_type]


def check_sender(reply: Message, question: Question) -> None:
    """Refuse an answer to another message, or from another node."""
    metadata = reply.metadata
    same = (
        metadata.src_node_id == question.node_id
        and metadata.reply_to_message_id == question.message_id
        and metadata.message_type == question.message_type
    )
    if not same:
        raise UnacceptableError(Reason.SENDER)


def _read_payload(record: object, expected: Expected) -> bytes:
    """Return the tensors' bytes once :func:`semc.wire.unpack` has accepted them."""
    if not isinstance(record, ArrayRecord) or list(record) != [protocol.SHARED_TENSORS]:
        raise UnacceptableError(Reason.RECORDS)
    array = record[protocol.SHARED_TENSORS]
    if array.stype != protocol.TENSOR_STYPE:
        raise UnacceptableError(Reason.TENSORS)
    try:
        unpack(array.data, expected.shapes, expected.wire_dtype)
    except WireError as error:
        raise UnacceptableError(Reason.TENSORS) from error
    return bytes(array.data)


def _values(record: object) -> dict[str, Any]:
    """Return the entries of a metric record."""
    if not isinstance(record, MetricRecord):
        raise UnacceptableError(Reason.RECORDS)
    return dict(record)


def read_told(values: Mapping[str, Any], expected: Expected) -> SiteMetrics:
    """Return the metrics once every name is on the mode's list and every value has its form.

    Raises:
        UnacceptableError: One has not.
    """
    read = read_disclosed if expected.private else read_metrics
    try:
        return read(values, expected.num_classes)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnacceptableError(Reason.METRICS) from error


def _read_head(record: object) -> str:
    """Return the head of the site's ledger, the one thing beside its tensors that a private update says."""
    if not isinstance(record, ConfigRecord) or list(record) != [protocol.LEDGER_HEAD]:
        raise UnacceptableError(Reason.RECORDS)
    head = record[protocol.LEDGER_HEAD]
    if not isinstance(head, str) or not _HEAD.fullmatch(head):
        raise UnacceptableError(Reason.RECORDS)
    return head
