"""What a study promises its patients, as numbers and in words that a data-protection officer can sign."""

from __future__ import annotations

import math
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

NO_GUARANTEE: Final = "Privacy mode none: no formal guarantee."
"""Stands in every report, table and summary of a study without patient-level privacy."""
UNIT: Final = "patient: all frames and labels of one patient at one hospital"
ADVERSARY: Final = (
    "anyone outside the hospital, the coordinator and the other hospitals included, who reads every message of every "
    "round, knows all other patients, and pools what they know"
)
OUTSIDE: Final = (
    "A patient at two hospitals: the two budgets add.",
    "Patients whose images only evaluate: the rates told of them follow small-cell rules, which are no formal "
    "guarantee.",
    "That a hospital takes part, and when: its membership is known.",
    "A round that a hospital had to train again after a crash: it costs once more; the hospital's own ledger has the "
    "true sum and keeps it below its limits.",
    "Other studies on the same patients: each adds to what they lose; the hospital's own ledger keeps the sum.",
)


class PrivacyStatement(BaseModel):
    """The guarantee of one study: for every patient, of everything sent about training images in all its rounds."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    mode: Literal["patient_dp"] = "patient_dp"
    unit: str = UNIT
    """Whose presence is protected: added or removed as a whole."""
    epsilon: float = Field(ge=0, le=700)
    """Of the whole plan at `delta`, by Renyi accounting: an upper bound, and what decides."""
    epsilon_limit: float = Field(gt=0)
    """Of the study: most that a hospital's ledger lets it charge a patient, rounds trained again included; a hospital's
    policy may set less."""
    epsilon_prv: float | None = Field(default=None, ge=0)
    """The same by the tighter PRV accounting, shown only; None where it was not computed."""
    delta: float = Field(gt=0, lt=1)
    """Probability with which the bound may fail."""
    noise_multiplier: float = Field(gt=0)
    """sigma: standard deviation of the noise in units of the clip norm."""
    max_grad_norm: float = Field(gt=0)
    """C: norm to which one patient's gradient is clipped, all frames together."""
    patient_fraction: float = Field(gt=0, le=1)
    """q: probability with which each patient enters a step."""
    steps: int = Field(ge=1)
    """Noisy steps in all rounds together."""
    trainable: str
    """Which part of the network is trained on patients."""
    num_trained_values: int = Field(ge=1)
    """Numbers in one site's update."""
    initial_weights: str
    """Where the weights before the first round come from, in words."""
    initial_weights_sha256: str
    """SHA-256 of them as sent in round 1; the part that is not trained is sent unchanged in every round."""
    adversary: str = ADVERSARY
    outside: tuple[str, ...] = OUTSIDE
    """What the guarantee does not cover, in words."""

    def sentence(self) -> str:
        """Return the guarantee as one sentence that leaves no symbol unexplained."""
        return (
            "For each patient, everything this study's plan lets a hospital send about its training images changes "
            f"the odds that this patient took part by a factor of at most {_shown(math.exp(self.epsilon))} (epsilon "
            f"{self.epsilon:.2f}), from even odds to at most {_percent(self.epsilon)} %, except with probability "
            f"{self.delta:.0e} (delta); rounds trained again cost more, and each hospital's ledger stops this study at "
            f"epsilon {self.epsilon_limit:.2f} or at its policy's limit, whichever is less."
        )


def _shown(factor: float) -> str:
    """Return e^epsilon, rounded up, as people write it."""
    if factor < 100:
        return f"{math.ceil(10 * factor) / 10:.1f}"
    return f"{math.ceil(factor):,}" if factor < 1e6 else f"{factor:.1e}"


def _percent(epsilon: float) -> str:
    """Return, rounded up, how sure of membership even odds can become: e^epsilon / (1 + e^epsilon).

    As many decimals as it takes to stay below 100: "100.0" would read as no protection at all.
    """
    exact = 100 / (1 + math.exp(-epsilon))
    for decimals in range(1, 8):
        percent = math.ceil(exact * 10**decimals) / 10**decimals
        if percent < 100:
            return f"{percent:.{decimals}f}"
    return "100"


def promise_rows(statement: PrivacyStatement) -> list[tuple[str, str]]:
    """Return what is promised, against whom and how, as name and value."""
    prv = "not computed" if statement.epsilon_prv is None else f"{statement.epsilon_prv:.2f}"
    return [
        ("protected", f"one {statement.unit}"),
        ("against", statement.adversary),
        ("epsilon at delta", f"{statement.epsilon:.2f} at {statement.delta:.0e} (RDP, decides); {prv} (PRV)"),
        (
            "enforced by each ledger",
            f"epsilon {statement.epsilon_limit:.2f} for this study, or its policy's limit where that is less",
        ),
        ("noise sigma, clip norm C", f"{statement.noise_multiplier:g}, {statement.max_grad_norm:g}"),
        (
            "patients per step, steps",
            f"each with probability {statement.patient_fraction:g}; {statement.steps} steps",
        ),
        ("trained", f"{statement.trainable}: {statement.num_trained_values:,} values"),
        ("initial weights", statement.initial_weights),
        ("initial weights (SHA-256)", statement.initial_weights_sha256),
    ]


def in_short(statement: PrivacyStatement | None) -> str:
    """Return a study's privacy in a few words, for lists."""
    if statement is None:
        return "no formal guarantee"
    return f"patient-level privacy, epsilon {statement.epsilon:.2f} at delta {statement.delta:.0e}"


def one_sentence(statement: PrivacyStatement | None) -> str:
    """Return what every report says of a study's privacy; None = mode none."""
    return NO_GUARANTEE if statement is None else f"Patient-level privacy. {statement.sentence()}"
