"""What travels between server and client: record keys, metric names, refusal codes.

Both ends import this module, so a key exists once. Nothing here touches the network.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

PROTOCOL_VERSION: Final = 1
FLOWER_VERSION: Final = "1.41.0"

# Records of a Flower message (Flower's own names where it has one).
CONFIG: Final = "config"
ARRAYS: Final = "arrays"
METRICS: Final = "metrics"

# Entries of the ConfigRecord the server sends.
STUDY: Final = "study"
"""The resolved study as YAML text; the client parses it and computes its own digest."""
STUDY_DIGEST: Final = "study-digest"
SERVER_ROUND: Final = "server-round"

# The one entry of an ArrayRecord: a safetensors file of the shared tensors.
SHARED_TENSORS: Final = "shared"
TENSOR_STYPE: Final = "semc.safetensors"

# Entries of the ConfigRecord a client answers a query with.
SITE: Final = "site"
SHARED_SCHEMA: Final = "shared-schema"
SOFTWARE_VERSION: Final = "software-version"
FLOWER_INSTALLED: Final = "flower-version"
"""The Flower version actually installed at the site; the study's digest only states the one it was made for."""

# Entries of the MetricRecord a client answers with; nothing else may leave.
NUM_EXAMPLES: Final = "num-examples"
TRAIN_LOSS: Final = "train-loss"
TRAIN_SECONDS: Final = "train-seconds"
TRAIN_STEPS: Final = "train-steps"
VALIDATION_CONFUSION: Final = "validation-confusion"
TEST_CONFUSION: Final = "test-confusion"
EXPERT_USE: Final = "expert-use"
ALPHA: Final = "alpha"

# Entries of the MetricRecord under privacy mode patient_dp: rates of the test patients, under the small-cell rules.
TEST_ACCURACY: Final = "test-accuracy"
TEST_BALANCED_ACCURACY: Final = "test-balanced-accuracy"
TEST_MACRO_F1: Final = "test-macro-f1"
TEST_RECALL: Final = "test-recall"
"""Recall of each study class; SUPPRESSED where too few patients have it."""
SUPPRESSED: Final = -1.0

DISCLOSED_NAMES: Final = frozenset({TEST_ACCURACY, TEST_BALANCED_ACCURACY, TEST_MACRO_F1, TEST_RECALL})

# Entry of the ConfigRecord of a training reply under patient_dp.
LEDGER_HEAD: Final = "ledger-head"
"""SHA-256 (hex) of the last entry of the site's privacy ledger: whoever keeps it can prove a rollback."""

METRIC_NAMES: Final = frozenset(
    {
        NUM_EXAMPLES,
        TRAIN_LOSS,
        TRAIN_SECONDS,
        TRAIN_STEPS,
        VALIDATION_CONFUSION,
        TEST_CONFUSION,
        EXPERT_USE,
        ALPHA,
    }
)


class RefusalCode(StrEnum):
    """The only words a site gives for not answering; details stay in its own log."""

    STUDY = "E_STUDY"
    """Study unreadable, not allowed here, of another digest or protocol."""
    MODEL = "E_MODEL"
    """Model settings differ from what the site approved, or weights do not fit."""
    DATA = "E_DATA"
    """The site's data cannot serve this study."""
    DATA_CHANGED = "E_DATA_CHANGED"
    """The site's data are not those of its last round, and the hospital has not said that they are to be used."""
    DEVICE = "E_DEVICE"
    """Out of memory or device failure."""
    DISK = "E_DISK"
    """State could not be written."""
    DIVERGED = "E_DIVERGED"
    """Local training ended in numbers that are not finite."""
    BUDGET = "E_BUDGET"
    """The site's privacy budget does not allow the round; the same answer whatever the data."""
    LEDGER = "E_LEDGER"
    """The site's privacy ledger cannot be trusted, so nothing is trained."""
    POLICY = "E_POLICY"
    """The site's policy does not allow this study."""
    INSTRUCTION = "E_INSTRUCTION"
    """The message's tensors or settings are malformed."""
    INTERNAL = "E_INTERNAL"
    """A defect; the incident is in the site's log."""
