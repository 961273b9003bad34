"""Every way an instruction can be wrong is refused with its code before a tensor is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from client.inbound import open_handshake, open_tensors, open_work
from client.refusal import RefusalError
from semc.config import SiteConfig, parse_study
from semc.config.site import ExpectedModelConfig, SiteDataConfig
from semc.exit_codes import SemcError
from semc.protocol import (
    ARRAYS,
    CONFIG,
    SERVER_ROUND,
    SHARED_TENSORS,
    STUDY,
    STUDY_DIGEST,
    TENSOR_STYPE,
    RefusalCode,
)
from semc.wire import pack
from tests.client.small_study import STUDY_TEXT

STUDY_CONFIG = parse_study(STUDY_TEXT)
SHAPES = {"a": (2, 3), "b": (4,)}
PAYLOAD = pack({"a": torch.ones(2, 3), "b": torch.zeros(4)}, "fp32")


def site(**changes: Any) -> SiteConfig:
    return SiteConfig(**{"site": "north", "data": SiteDataConfig(root=Path("images")), **changes})


def array(data: bytes = PAYLOAD, **changes: Any) -> Array:
    return Array(**{"dtype": "uint8", "shape": (len(data),), "stype": TENSOR_STYPE, "data": data, **changes})


def message(arrays: dict[str, Array] | None = None, **changes: Any) -> RecordDict:
    config = {
        STUDY: STUDY_CONFIG.to_yaml(),
        STUDY_DIGEST: STUDY_CONFIG.digest(),
        SERVER_ROUND: 1,
        **changes,
    }
    return RecordDict(
        {
            CONFIG: ConfigRecord({key: value for key, value in config.items() if value is not None}),
            ARRAYS: ArrayRecord(arrays if arrays is not None else {SHARED_TENSORS: array()}),
        }
    )


def code(act: Callable[[], object]) -> RefusalCode:
    with pytest.raises(RefusalError) as caught:
        act()
    assert caught.value.problem.line().count("\n") == 0
    return caught.value.code


def work_code(content: RecordDict, at: SiteConfig | None = None) -> RefusalCode:
    return code(lambda: open_work(content, at or site(), closing=False))


def test_a_proper_instruction_opens() -> None:
    instruction = open_work(message(), site(), closing=False)
    assert (instruction.study, instruction.round_number) == (STUDY_CONFIG, 1)
    assert instruction.digest == STUDY_CONFIG.digest()
    tensors = open_tensors(instruction, SHAPES)
    assert torch.equal(tensors["a"], torch.ones(2, 3))


def test_a_proper_handshake_opens_and_carries_no_tensors() -> None:
    content = message()
    assert code(lambda: open_handshake(content, site())) is RefusalCode.INSTRUCTION
    del content[ARRAYS]
    assert open_handshake(content, site()).payload is None


@pytest.mark.parametrize("number", [0, -1, 3, 1.0, "1", True, None])
def test_a_round_outside_the_study_is_refused(number: object) -> None:
    assert work_code(message(**{SERVER_ROUND: number})) is RefusalCode.INSTRUCTION


def test_the_closing_evaluation_may_follow_the_last_round() -> None:
    last = STUDY_CONFIG.federation.rounds
    assert open_work(message(**{SERVER_ROUND: last + 1}), site(), closing=True).round_number == last + 1
    assert (
        code(lambda: open_work(message(**{SERVER_ROUND: last + 2}), site(), closing=True))
        is RefusalCode.INSTRUCTION
    )


BOMB = "a: &a [1,1]\nb: &b [*a,*a]\nc: [*b,*b]\n"


@pytest.mark.parametrize(
    "text",
    [None, "", "name: [", "- a list", BOMB, STUDY_TEXT + "\nstranger: 1\n", STUDY_TEXT + "#" * 70_000, 7],
)
def test_a_study_that_is_none_is_refused(text: object) -> None:
    assert work_code(message(**{STUDY: text})) is RefusalCode.STUDY


@pytest.mark.parametrize(
    "weights", ["/etc/passwd", "../w.pth", "a/w.pth", "a\\w.pth", "w..pth", "", "w.pth\n"]
)
def test_a_study_cannot_choose_a_path_to_open(weights: str) -> None:
    def named(name: str) -> RecordDict:
        model = {"backbone": "resnet18", "weights": name, "weights_sha256": "0" * 64}
        content = yaml.safe_load(STUDY_TEXT)
        content["model"] |= model
        try:
            digest = parse_study(yaml.safe_dump(content)).digest()
        except SemcError:
            digest = "0" * 64
        return message(**{STUDY: yaml.safe_dump(content), STUDY_DIGEST: digest})

    assert open_work(named("w.pth"), site(), closing=False).study.model.weights == "w.pth"
    with pytest.raises(RefusalError) as caught:
        open_work(named(weights), site(), closing=False)
    assert caught.value.code is RefusalCode.STUDY
    assert "bare file name" in caught.value.problem.problem


@pytest.mark.parametrize("digest", [None, "", "0" * 64, STUDY_CONFIG.digest().upper(), 3])
def test_another_digest_is_refused(digest: object) -> None:
    assert work_code(message(**{STUDY_DIGEST: digest})) is RefusalCode.STUDY


def test_a_study_the_site_does_not_take_part_in_is_refused() -> None:
    assert work_code(message(), site(allowed_studies=("0" * 12,))) is RefusalCode.STUDY
    assert work_code(message(), site(site="elsewhere")) is RefusalCode.STUDY
    digest = STUDY_CONFIG.digest()
    for allowed in (digest, digest[:12]):
        open_work(message(), site(allowed_studies=("0" * 12, allowed)), closing=False)


@pytest.mark.parametrize(
    "expected",
    [{"preset": "paper"}, {"backbone": "resnet50"}, {"image_size": 224}, {"classes": ("head", "abdomen")}],
)
def test_settings_the_site_did_not_approve_are_refused(expected: dict[str, Any]) -> None:
    at = site(expected_model=ExpectedModelConfig(**expected))
    assert work_code(message(), at) is RefusalCode.MODEL


def test_approved_settings_pass() -> None:
    approved = ExpectedModelConfig(
        preset=STUDY_CONFIG.preset,
        backbone=STUDY_CONFIG.model.backbone,
        image_size=STUDY_CONFIG.data.image_size,
        classes=STUDY_CONFIG.data.classes,
    )
    open_work(message(), site(expected_model=approved), closing=False)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"other": array()},
        {SHARED_TENSORS: array(), "more": array()},
        {SHARED_TENSORS: array(stype="numpy.ndarray")},
        {SHARED_TENSORS: array(dtype="float32")},
        {SHARED_TENSORS: array(shape=(1, len(PAYLOAD)))},
        {SHARED_TENSORS: array(shape=(len(PAYLOAD) + 1,))},
    ],
)
def test_anything_but_one_packed_array_is_refused(arrays: dict[str, Array]) -> None:
    assert work_code(message(arrays=arrays)) is RefusalCode.INSTRUCTION


def test_more_records_than_expected_are_refused() -> None:
    content = message()
    content["extra"] = MetricRecord({"x": 1})
    assert work_code(content) is RefusalCode.INSTRUCTION
    content = message()
    content[CONFIG] = MetricRecord({"x": 1})
    assert work_code(content) is RefusalCode.INSTRUCTION


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", RefusalCode.MODEL),
        (b"\x00" * 40, RefusalCode.MODEL),
        (PAYLOAD[:-1], RefusalCode.MODEL),
        (pack({"a": torch.ones(2, 3)}, "fp32"), RefusalCode.MODEL),
        (pack({"a": torch.ones(3, 2), "b": torch.zeros(4)}, "fp32"), RefusalCode.MODEL),
        (pack({"a": torch.ones(2, 3), "b": torch.zeros(4)}, "bf16"), RefusalCode.MODEL),
        (PAYLOAD.replace(b"\x00\x00\x80?", b"\x00\x00\xc0\x7f"), RefusalCode.MODEL),
        (b"\x00" * (1 << 21), RefusalCode.INSTRUCTION),
    ],
)
def test_tensors_that_are_not_the_studys_are_refused(payload: bytes, expected: RefusalCode) -> None:
    instruction = open_work(message(arrays={SHARED_TENSORS: array(payload)}), site(), closing=False)
    assert code(lambda: open_tensors(instruction, SHAPES)) is expected
