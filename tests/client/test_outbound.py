"""What is not on the list does not leave; each rule has a control that shows it bites."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest
import torch
from flwr.app import RecordDict

from client.outbound import OutboundError, handshake_content, metrics_content, refusal, update_content
from client.refusal import RefusalError, refuse
from client.round_update import RoundUpdate
from semc.config import parse_study
from semc.exit_codes import ExitCode, SemcError
from semc.protocol import (
    ALPHA,
    ARRAYS,
    CONFIG,
    EXPERT_USE,
    FLOWER_INSTALLED,
    METRICS,
    NUM_EXAMPLES,
    SHARED_SCHEMA,
    SHARED_TENSORS,
    SITE,
    SOFTWARE_VERSION,
    TENSOR_STYPE,
    TEST_CONFUSION,
    TRAIN_LOSS,
    TRAIN_SECONDS,
    TRAIN_STEPS,
    VALIDATION_CONFUSION,
    RefusalCode,
)
from semc.wire import unpack
from tests.client.flower_message import question
from tests.client.small_study import STUDY_TEXT

STUDY = parse_study(STUDY_TEXT)
SHAPES = {"conv.weight": (2, 3), "bn.weight": (2,)}
SHARED = {"conv.weight": torch.ones(2, 3), "bn.weight": torch.zeros(2)}
GOOD: dict[str, Any] = {
    NUM_EXAMPLES: 40,
    TRAIN_LOSS: 0.5,
    TRAIN_SECONDS: 1.0,
    TRAIN_STEPS: 2,
    VALIDATION_CONFUSION: [1] * 9,
    TEST_CONFUSION: [0] * 9,
    EXPERT_USE: [0.2, 0.8],
    ALPHA: 0.5,
}


def test_exactly_the_shared_tensors_and_the_listed_metrics_leave() -> None:
    content = update_content(RoundUpdate(SHARED, GOOD), STUDY, SHAPES)
    assert set(content) == {ARRAYS, METRICS}
    assert dict(content[METRICS]) == GOOD
    assert list(content[ARRAYS]) == [SHARED_TENSORS]
    array = content[ARRAYS][SHARED_TENSORS]
    assert (array.dtype, array.stype, tuple(array.shape)) == ("uint8", TENSOR_STYPE, (len(array.data),))
    header = json.loads(array.data[8 : 8 + int.from_bytes(array.data[:8], "little")])
    assert set(header) == set(SHAPES), "no __metadata__, a channel for free text"
    assert all(
        torch.equal(tensor, SHARED[name]) for name, tensor in unpack(array.data, SHAPES, "fp32").items()
    )


@pytest.mark.parametrize(
    "shared",
    [
        {**SHARED, "bn.running_mean": torch.zeros(2)},
        {**SHARED, "queue": torch.zeros(64, 8)},
        {"conv.weight": SHARED["conv.weight"]},
        {**SHARED, "conv.weight": torch.ones(3, 2)},
        {},
    ],
)
def test_other_tensors_do_not_leave(shared: dict[str, torch.Tensor]) -> None:
    with pytest.raises(OutboundError):
        update_content(RoundUpdate(shared, GOOD), STUDY, SHAPES)


@pytest.mark.parametrize(
    "extra",
    [
        {"file": 1},
        {"patient-count": 4},
        {TRAIN_LOSS: "images/mueller.png"},
        {TRAIN_LOSS: 1},
        {TRAIN_LOSS: [0.1, 0.2]},
        {NUM_EXAMPLES: 4.0},
        {NUM_EXAMPLES: True},
        {NUM_EXAMPLES: -1},
        {VALIDATION_CONFUSION: [1] * 8},
        {VALIDATION_CONFUSION: [0.5] * 9},
        {TEST_CONFUSION: 3},
        {EXPERT_USE: [0.1] * 3},
        {EXPERT_USE: [1, 2]},
    ],
)
def test_other_metrics_do_not_leave(extra: dict[str, Any]) -> None:
    with pytest.raises(OutboundError):
        metrics_content({**GOOD, **extra}, STUDY)


def test_weights_that_are_not_finite_do_not_leave() -> None:
    for shared, metrics in (
        ({**SHARED, "bn.weight": torch.tensor([1.0, float("nan")])}, GOOD),
        (SHARED, {**GOOD, TRAIN_LOSS: float("inf")}),
    ):
        with pytest.raises(RefusalError) as caught:
            update_content(RoundUpdate(shared, metrics), STUDY, SHAPES)
        assert caught.value.code is RefusalCode.DIVERGED


def test_the_handshake_tells_name_versions_and_schema_only() -> None:
    content = handshake_content("north", "ab" * 32)
    assert set(content) == {CONFIG}
    assert set(content[CONFIG]) == {SITE, SHARED_SCHEMA, SOFTWARE_VERSION, FLOWER_INSTALLED}


class _Named(Exception):
    """An exception whose text would tell a patient's name."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (_Named("/data/mueller_1953-02-01/scan.png"), RefusalCode.INTERNAL),
        (FileNotFoundError(2, "No such file", "/data/mueller.png"), RefusalCode.INTERNAL),
        (OSError(errno.ENOSPC, "No space left", "/data/mueller"), RefusalCode.DISK),
        (OutboundError("mueller"), RefusalCode.INTERNAL),
        (MemoryError("mueller"), RefusalCode.DEVICE),
        (RuntimeError("CUDA error: out of memory, mueller"), RefusalCode.DEVICE),
        (SemcError(ExitCode.DATA_UNREADABLE, "mueller", "mueller"), RefusalCode.DATA),
        (SemcError(ExitCode.STUDY_MISMATCH, "mueller", ""), RefusalCode.MODEL),
        (SemcError(ExitCode.KEY_INVALID, "mueller", ""), RefusalCode.INTERNAL),
        (refuse(RefusalCode.STUDY, ExitCode.STUDY_MISMATCH, "mueller", ""), RefusalCode.STUDY),
    ],
)
def test_an_error_leaves_as_its_code_and_nothing_else(error: Exception, code: RefusalCode) -> None:
    reply = refusal(question(RecordDict(), "train"), error)
    assert reply.error.reason == code.value
    assert "mueller" in str(error), "the control: the text itself names a patient"
    assert "mueller" not in repr(reply.error.__dict__)
