"""The one door in: a reply is checked completely before anything of it reaches the aggregation.

Flower's own strategies average whatever arrives: NaN, int8, another shape, a claimed 1e12 examples. Here a
reply must answer the message it names, come from the node it was sent to, hold exactly the records and metric
names of the protocol, and, for training, exactly the tensors of the study's network (semc/wire.py reads them;
nothing is ever unpickled or passed to numpy.load). What fails is refused with a code and named in the round's
receipt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord, Message, MetricRecord

from semc import protocol
from semc.metrics import Confusion
from semc.wire import WireDtype, WireError, unpack
from server.receipts import Reason, Receipt, SiteState, receipt_of_error

MAX_EXPERTS = 16
"""Longest list of expert shares read; networks have up to 4."""


@dataclass(frozen=True)
class Expected:
    """What a valid reply of this study looks like."""

    shapes: Mapping[str, tuple[int, ...]]
    """Shape of every shared tensor by name."""
    wire_dtype: WireDtype
    num_classes: int


@dataclass(frozen=True)
class SiteMetrics:
    """The numbers a site may tell; absent ones are None."""

    num_examples: int
    train_loss: float | None = None
    train_seconds: float | None = None
    train_steps: int | None = None
    validation: Confusion | None = None
    """Counts of the model that the site received, on its validation images."""
    test: Confusion | None = None
    """Counts of the model that the site received, on its test images."""
    expert_use: tuple[float, ...] = ()
    alpha: float | None = None


@dataclass(frozen=True)
class CheckedReply:
    """A reply that may be used."""

    site: str
    metrics: SiteMetrics
    payload: bytes | None
    """The shared tensors as a safetensors file, already validated; None for an evaluation."""


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
    """Check an answer to a TRAIN message: one array record, one metric record."""
    return _checked(reply, question, expected, with_tensors=True)


def check_evaluation_reply(reply: Message, question: Question, expected: Expected) -> CheckedReply | Refusal:
    """Check an answer to an EVALUATE message: one metric record."""
    return _checked(reply, question, expected, with_tensors=False)


def _checked(
    reply: Message, question: Question, expected: Expected, *, with_tensors: bool
) -> CheckedReply | Refusal:
    try:
        if reply.has_error():
            receipt = receipt_of_error(reply.error.code, reply.error.reason or "")
            return Refusal(question.site, receipt)
        check_sender(reply, question)
        records = {protocol.METRICS, protocol.ARRAYS} if with_tensors else {protocol.METRICS}
        if set(reply.content) != records:
            raise UnacceptableError(Reason.RECORDS)
        metrics = _read_metrics(reply.content[protocol.METRICS], expected.num_classes)
        payload = _read_payload(reply.content[protocol.ARRAYS], expected) if with_tensors else None
    except UnacceptableError as error:
        return Refusal(question.site, Receipt(SiteState.REFUSED, error.reason))
    return CheckedReply(question.site, metrics, payload)


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


def _read_metrics(record: object, num_classes: int) -> SiteMetrics:
    """Return the metrics once every name is on the list and every value has its form."""
    if not isinstance(record, MetricRecord):
        raise UnacceptableError(Reason.RECORDS)
    values: dict[str, Any] = dict(record)
    if not values.keys() <= protocol.METRIC_NAMES or protocol.NUM_EXAMPLES not in values:
        raise UnacceptableError(Reason.METRICS)
    try:
        return SiteMetrics(
            num_examples=_count(values[protocol.NUM_EXAMPLES]),
            train_loss=_optional(values, protocol.TRAIN_LOSS, _number),
            train_seconds=_optional(values, protocol.TRAIN_SECONDS, _number),
            train_steps=_optional(values, protocol.TRAIN_STEPS, _count),
            validation=_confusion(values.get(protocol.VALIDATION_CONFUSION), num_classes),
            test=_confusion(values.get(protocol.TEST_CONFUSION), num_classes),
            expert_use=_numbers(values.get(protocol.EXPERT_USE, [])),
            alpha=_optional(values, protocol.ALPHA, _number),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise UnacceptableError(Reason.METRICS) from error


def _optional(values: Mapping[str, Any], name: str, read: Any) -> Any:
    return read(values[name]) if name in values else None


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise ValueError("not a count")
    return value


def _number(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError("not a finite number")
    return float(value)  # type: ignore[arg-type]


def _numbers(values: object) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) > MAX_EXPERTS:
        raise ValueError("not a short list of numbers")
    return tuple(_number(value) for value in values)


def _confusion(counts: object, num_classes: int) -> Confusion | None:
    """Read K*K counts, row-major; None where the site has none to tell."""
    if counts is None:
        return None
    if not isinstance(counts, list):
        raise ValueError("not a list of counts")
    return Confusion.from_list([_count(count) for count in counts], num_classes)
