"""The one door out: what is not on the list does not leave the hospital.

Tensors: exactly the study's shared names and shapes, packed without free text. Metrics: the names of the
protocol, each with its one form; with patient-level privacy nothing that tells of training, only rates of test
patients and the privacy ledger's head. Errors: a listed code, never a text. What is none of these raises, and what
raises is not sent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Final

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from torch import Tensor

import semc
from client.refusal import refusal_of, refuse
from client.round_update import MetricValue, RoundUpdate
from semc.config import StudyConfig
from semc.exit_codes import ExitCode
from semc.protocol import (
    ALPHA,
    ARRAYS,
    CONFIG,
    DISCLOSED_NAMES,
    EXPERT_USE,
    FLOWER_INSTALLED,
    LEDGER_HEAD,
    METRIC_NAMES,
    METRICS,
    NUM_EXAMPLES,
    SHARED_SCHEMA,
    SHARED_TENSORS,
    SITE,
    SOFTWARE_VERSION,
    SUPPRESSED,
    TENSOR_STYPE,
    TEST_CONFUSION,
    TEST_RECALL,
    TRAIN_LOSS,
    TRAIN_SECONDS,
    TRAIN_STEPS,
    VALIDATION_CONFUSION,
    RefusalCode,
)
from semc.wire import WireError, pack

APP_RAISED: Final = 2
"""Flower's error code of an app that failed (its CLIENT_APP_RAISED_EXCEPTION)."""

_COUNTS: Final = frozenset({NUM_EXAMPLES, TRAIN_STEPS})
_NUMBERS: Final = frozenset({TRAIN_LOSS, TRAIN_SECONDS, ALPHA})
_CONFUSIONS: Final = frozenset({VALIDATION_CONFUSION, TEST_CONFUSION})
_HEAD: Final = re.compile(r"[0-9a-f]{64}")


class OutboundError(RuntimeError):
    """Something not on the list was about to leave; a defect of this software."""


def update_content(
    update: RoundUpdate, study: StudyConfig, expected: Mapping[str, tuple[int, ...]]
) -> RecordDict:
    """Return the content of a reply to a training round.

    Args:
        update: What the round produced.
        study: Fixes the wire's precision and the sizes of the metrics.
        expected: Shape of every shared tensor by name.

    Raises:
        OutboundError: A tensor or metric is not on the list.
        RefusalError: DIVERGED where a tensor or a loss is not finite.
    """
    data = _packed(update.shared, study, expected)
    arrays = ArrayRecord(
        {SHARED_TENSORS: Array(dtype="uint8", shape=(len(data),), stype=TENSOR_STYPE, data=data)}
    )
    if not study.privacy.private:
        return RecordDict({ARRAYS: arrays, METRICS: _metrics(update.metrics, study)})
    if update.metrics or not _HEAD.fullmatch(update.ledger_head):
        raise OutboundError("a private update was about to leave with metrics, or without its ledger's head")
    return RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord({LEDGER_HEAD: update.ledger_head})})


def metrics_content(metrics: Mapping[str, MetricValue], study: StudyConfig) -> RecordDict:
    """Return the content of a reply that carries metrics only.

    Raises:
        OutboundError: A metric is not on the list.
    """
    return RecordDict({METRICS: _metrics(metrics, study)})


def handshake_content(site: str, shared_schema: str) -> RecordDict:
    """Return the content of a reply to the handshake: who answers, with which software and network."""
    config = ConfigRecord(
        {
            SITE: site,
            SHARED_SCHEMA: shared_schema,
            SOFTWARE_VERSION: semc.__version__,
            FLOWER_INSTALLED: version("flwr"),
        }
    )
    return RecordDict({CONFIG: config})


def refusal(message: Message, error: Exception) -> Message:
    """Return the reply that says no: a listed code and nothing of the error's text."""
    return Message(Error(APP_RAISED, refusal_of(error).value), reply_to=message)


def _packed(
    shared: Mapping[str, Tensor], study: StudyConfig, expected: Mapping[str, tuple[int, ...]]
) -> bytes:
    found = {name: tuple(tensor.shape) for name, tensor in shared.items()}
    if found != dict(expected):
        raise OutboundError("tensors other than the study's shared ones were about to leave")
    try:
        return pack(shared, study.federation.wire_dtype)
    except WireError as error:
        raise refuse(
            RefusalCode.DIVERGED,
            ExitCode.RUN_FAILED,
            f"Training gave no usable weights: {error}.",
            "lower training.learning_rate or set training.gradient_clip in the study",
        ) from error


def _metrics(metrics: Mapping[str, MetricValue], study: StudyConfig) -> MetricRecord:
    """Check each metric's name and form and return the record."""
    allowed = DISCLOSED_NAMES if study.privacy.private else METRIC_NAMES
    for name, value in metrics.items():
        if name not in allowed or not _has_its_form(name, value, study):
            raise OutboundError("a metric that is not on the list was about to leave")
        if name in _NUMBERS and isinstance(value, float) and not math.isfinite(value):
            raise refuse(
                RefusalCode.DIVERGED,
                ExitCode.RUN_FAILED,
                "Training gave a loss that is not finite.",
                "lower training.learning_rate or set training.gradient_clip in the study",
            )
    return MetricRecord(dict(metrics))


def _has_its_form(name: str, value: object, study: StudyConfig) -> bool:
    """Tell whether a metric is the one kind and size of number its name stands for."""
    if isinstance(value, list):
        return _has_list_form(name, value, study)
    if name in _COUNTS:
        return type(value) is int and value >= 0
    if name in _NUMBERS:
        return type(value) is float
    return name in DISCLOSED_NAMES and name != TEST_RECALL and _is_rate(value)


def _has_list_form(name: str, values: list[int] | list[float], study: StudyConfig) -> bool:
    """Tell the same of a metric that is a list."""
    classes = len(study.data.classes)
    if name == TEST_RECALL:
        return len(values) == classes and all(rate == SUPPRESSED or _is_rate(rate) for rate in values)
    if name in _CONFUSIONS:
        return len(values) == classes**2 and all(type(count) is int and count >= 0 for count in values)
    if name != EXPERT_USE:
        return False
    return len(values) <= study.model.experts and all(type(share) is float for share in values)


def _is_rate(value: object) -> bool:
    """Tell whether a value is a share, rounded to hundredths as the disclosure rules have it."""
    return type(value) is float and 0 <= value <= 1 and math.isclose(value, round(value, 2), abs_tol=1e-9)
