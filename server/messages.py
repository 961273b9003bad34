"""What the coordinator sends: the study's text and digest, the round, and for work the weights.

In privacy mode patient_dp a site also gets the newest head of its own ledger that the coordinator has seen, so that it
notices an older copy of that ledger before it trains on one.
"""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from semc import protocol
from semc.config import StudyConfig


def hello_content(study: StudyConfig) -> RecordDict:
    """Return the content of a QUERY: who are you, and would this study run at your site?"""
    return RecordDict({protocol.CONFIG: _config(study, 0)})


def weights_record(payload: bytes) -> ArrayRecord:
    """Return the record of the global weights, packed by :func:`semc.wire.pack`; all sites' messages share it."""
    array = Array(dtype="uint8", shape=(len(payload),), stype=protocol.TENSOR_STYPE, data=payload)
    return ArrayRecord({protocol.SHARED_TENSORS: array})


def work_content(
    study: StudyConfig, round_number: int, weights: ArrayRecord, ledger_head: str | None = None
) -> RecordDict:
    """Return the content of a TRAIN or EVALUATE message to one site.

    Args:
        study: The study.
        round_number: The round being trained; for the closing evaluation, one more than the last.
        weights: See :func:`weights_record`.
        ledger_head: The newest head of this site's ledger, None where there is none to know.
    """
    config = _config(study, round_number)
    if ledger_head is not None:
        config[protocol.LEDGER_HEAD] = ledger_head
    return RecordDict({protocol.ARRAYS: weights, protocol.CONFIG: config})


def _config(study: StudyConfig, round_number: int) -> ConfigRecord:
    return ConfigRecord(
        {
            protocol.STUDY: study.to_yaml(),
            protocol.STUDY_DIGEST: study.digest(),
            protocol.SERVER_ROUND: round_number,
        }
    )
