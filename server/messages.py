"""What the coordinator sends: the study's text and digest, the round, and for work the weights."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from semc import protocol
from semc.config import StudyConfig


def hello_content(study: StudyConfig) -> RecordDict:
    """Return the content of a QUERY: who are you, and would this study run at your site?"""
    return RecordDict({protocol.CONFIG: _config(study, 0)})


def work_content(study: StudyConfig, round_number: int, payload: bytes) -> RecordDict:
    """Return the content of a TRAIN or EVALUATE message.

    Args:
        study: The study.
        round_number: The round being trained; for the closing evaluation, one more than the last.
        payload: The global weights, packed by :func:`semc.wire.pack`.
    """
    array = Array(dtype="uint8", shape=(len(payload),), stype=protocol.TENSOR_STYPE, data=payload)
    return RecordDict(
        {
            protocol.ARRAYS: ArrayRecord({protocol.SHARED_TENSORS: array}),
            protocol.CONFIG: _config(study, round_number),
        }
    )


def _config(study: StudyConfig, round_number: int) -> ConfigRecord:
    return ConfigRecord(
        {
            protocol.STUDY: study.to_yaml(),
            protocol.STUDY_DIGEST: study.digest(),
            protocol.SERVER_ROUND: round_number,
        }
    )
