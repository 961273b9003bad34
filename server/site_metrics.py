"""The numbers a site may tell, read from a metric record: every name on the list, every value of its one form.

Mode none: counts and means of :data:`semc.protocol.METRIC_NAMES`. Mode patient_dp: nothing about training images;
after the last round the rates of :data:`semc.protocol.DISCLOSED_NAMES`, all or none. Neither mode takes the other's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from semc import protocol
from semc.metrics import Confusion
from semc.privacy.disclosure import DECIMALS, DisclosedScores

MAX_EXPERTS: Final = 16
"""Longest list of expert shares read; networks have up to 4."""


@dataclass(frozen=True)
class SiteMetrics:
    """What a site told; absent numbers are None."""

    num_examples: int | None = None
    train_loss: float | None = None
    train_seconds: float | None = None
    train_steps: int | None = None
    validation: Confusion | None = None
    """Counts of the model that the site received, on its validation images."""
    test: Confusion | None = None
    """Counts of the model that the site received, on its test images."""
    expert_use: tuple[float, ...] = ()
    alpha: float | None = None
    disclosed: DisclosedScores | None = None
    """Mode patient_dp: rates of the test patients; None where too few stand behind them."""


def read_metrics(values: Mapping[str, Any], num_classes: int) -> SiteMetrics:
    """Read the metrics of mode none.

    Raises:
        ValueError: A name is unknown, `num-examples` is missing, or a value has not its form.
    """
    if not values.keys() <= protocol.METRIC_NAMES or protocol.NUM_EXAMPLES not in values:
        raise ValueError("not the metrics of the protocol")
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


def read_disclosed(values: Mapping[str, Any], num_classes: int) -> SiteMetrics:
    """Read the metrics of mode patient_dp's one evaluation: all four rates, or none.

    Raises:
        ValueError: A name is unknown or missing, or a value is not a rate with two decimals.
    """
    if not values:
        return SiteMetrics()
    if values.keys() != protocol.DISCLOSED_NAMES:
        raise ValueError("not the rates of the protocol")
    recall = values[protocol.TEST_RECALL]
    if not isinstance(recall, list) or len(recall) != num_classes:
        raise ValueError("not one recall per class")
    return SiteMetrics(
        disclosed=DisclosedScores(
            accuracy=_rate(values[protocol.TEST_ACCURACY]),
            balanced_accuracy=_rate(values[protocol.TEST_BALANCED_ACCURACY]),
            macro_f1=_rate(values[protocol.TEST_MACRO_F1]),
            recall=tuple(None if value == protocol.SUPPRESSED else _rate(value) for value in recall),
        )
    )


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


def _rate(value: object) -> float:
    """Read a share; one with more digits than the rules let out is refused."""
    if type(value) is not float or not 0.0 <= value <= 1.0 or round(value, DECIMALS) != value:
        raise ValueError("not a rate with two decimals")
    return value


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
