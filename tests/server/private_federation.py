"""A small federation of privacy mode patient_dp: sites send back one trained tensor and their ledger's head."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from semc import protocol
from semc.config import StudyConfig, parse_study
from semc.wire import pack
from tests.server.federation import ScriptedSite, array_record, honest, received_tensors

TRAINED = "fc.bias"
RATES: dict[str, Any] = {
    protocol.TEST_ACCURACY: 0.8,
    protocol.TEST_BALANCED_ACCURACY: 0.75,
    protocol.TEST_MACRO_F1: 0.7,
    protocol.TEST_RECALL: [0.5, protocol.SUPPRESSED],
}


def private_study(*, noise: float = 2.0, **federation: Any) -> StudyConfig:
    """Return a two-class study of mode patient_dp; keywords overrule its federation section."""
    settings = {"rounds": 2, "deadline_seconds": 5.0, "join_timeout_seconds": 2.0, **federation}
    return parse_study(
        """
name: tiny
seed: 3
data: {classes: [head, femur], image_size: 32}
model: {backbone: small}
training: {local_steps: 5}
federation: {sites: [north, south, west]}
pretraining: {}
privacy: {mode: patient_dp}
""",
        {
            **{f"federation.{key}": value for key, value in settings.items()},
            "privacy.noise_multiplier": noise,
        },
    )


def head_of(*parts: object) -> str:
    """Return what could be the hash of a ledger's entry."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def site_head(site: str, num_received: int, digest: str) -> str:
    """Return the head that a site gives with its reply to the message it received as the n-th."""
    return head_of(site, num_received, digest)


def update_record(site: ScriptedSite, message: Message, head: str | None = None) -> RecordDict:
    """Return the content of a correct private training reply: one tensor, one head."""
    step = received_tensors(message)[TRAINED] + site.step
    if head is None:
        head = site_head(
            site.name, len(site.received), str(message.content[protocol.CONFIG][protocol.STUDY_DIGEST])
        )
    return RecordDict(
        {
            protocol.ARRAYS: array_record(pack({TRAINED: step}, "fp32")),
            protocol.CONFIG: ConfigRecord({protocol.LEDGER_HEAD: head}),
        }
    )


def private(site: ScriptedSite, message: Message) -> Message:
    """Answer as a correct site does under patient_dp."""
    match message.metadata.message_type:
        case "train":
            return Message(update_record(site, message), reply_to=message)
        case "evaluate":
            return Message(RecordDict({protocol.METRICS: MetricRecord(RATES)}), reply_to=message)
        case _:
            return honest(site, message)


def with_update(**changes: torch.Tensor) -> bytes:
    """Return a payload of the trained tensor and others, underscores for dots."""
    return pack({TRAINED: torch.ones(2), **{k.replace("_", "."): v for k, v in changes.items()}}, "fp32")
