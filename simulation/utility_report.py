"""The table of a utility experiment: epsilon and patients against macro-F1 and balanced accuracy, with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.ledger_utility import study_noise
from semc.parameter_exchange import update_shapes
from semc.reporting.bootstrap import PatientBootstrap
from semc.reporting.estimate import Difference, Estimate
from semc.reporting.text_table import format_estimate, format_paired, markdown_table
from simulation.arm_run import ArmRun
from simulation.utility import UtilityRequest, arm_name, records_of

COLUMNS = (
    "patients per hospital",
    "epsilon",
    "noise multiplier",
    "study noise",
    "macro-F1",
    "balanced accuracy",
    "macro-F1 lost to noise",
    "worst hospital's macro-F1",
)


@dataclass(frozen=True)
class UtilityRow:
    """One number of patients with one epsilon."""

    patients: int
    epsilon: float
    noise_multiplier: float
    study_noise: float
    """Noise over signal in the mean of all steps, by which `semc-client ledger plan` looks up what to expect."""
    macro_f1: Estimate | None
    balanced_accuracy: Estimate | None
    against_no_noise: Difference | None
    """Macro-F1 minus that of the same training without noise, over the same patients."""
    worst: Estimate | None

    def cells(self) -> list[str]:
        """Return the row as text."""
        return [
            str(self.patients),
            "no noise" if math.isinf(self.epsilon) else f"{self.epsilon:g}",
            f"{self.noise_multiplier:g}",
            f"{self.study_noise:.2f}",
            format_estimate(self.macro_f1),
            format_estimate(self.balanced_accuracy),
            format_paired(self.against_no_noise),
            format_estimate(self.worst),
        ]

    def content(self) -> dict[str, Any]:
        """Return the row as JSON can hold it; epsilon is null without noise."""

        def value(estimate: Estimate | None) -> list[float | None] | None:
            return None if estimate is None else [estimate.value, estimate.low, estimate.high]

        return {
            "patients": self.patients,
            "epsilon": None if math.isinf(self.epsilon) else self.epsilon,
            "noise_multiplier": self.noise_multiplier,
            "study_noise": self.study_noise,
            "macro_f1": value(self.macro_f1),
            "balanced_accuracy": value(self.balanced_accuracy),
            "worst_macro_f1": value(self.worst),
        }


def utility_rows(request: UtilityRequest, runs: Mapping[tuple[int, int], ArmRun]) -> list[UtilityRow]:
    """Return the rows, patients first, in the order asked for.

    Args:
        request: What was asked.
        runs: (patients, seed) to answers.
    """
    rows, weights = [], num_trained(request)
    for patients in request.patients:
        groups = records_of([run for (size, _), run in runs.items() if size == patients])
        f1, balanced = PatientBootstrap(groups), PatientBootstrap(groups, "balanced_accuracy")
        quiet = arm_name(math.inf)
        for epsilon, multiplier in request.noise.items():
            name = arm_name(epsilon)
            worst = f1.worst(name)
            compared = quiet in groups and name != quiet
            rows.append(
                UtilityRow(
                    patients=patients,
                    epsilon=epsilon,
                    noise_multiplier=multiplier,
                    study_noise=study_noise(
                        multiplier,
                        weights,
                        request.study.privacy.patient_fraction,
                        patients,
                        request.num_steps,
                    ),
                    macro_f1=f1.mean(name),
                    balanced_accuracy=balanced.mean(name),
                    against_no_noise=f1.paired_difference(name, quiet) if compared else None,
                    worst=None if worst is None else worst.estimate,
                )
            )
    return rows


def write_utility(request: UtilityRequest, rows: Sequence[UtilityRow], out: Path) -> str:
    """Write `utility.md` and `utility.json` and return the Markdown."""
    study = request.study
    trained = num_trained(request)
    seeds = f"{len(request.seeds)} seed" + ("s" if len(request.seeds) > 1 else "")
    caption = (
        f"{study.name}: {len(study.federation.sites)} hospitals, trained: {study.privacy.trainable} "
        f"({trained} values), {study.federation.rounds} rounds of {study.training.local_steps} steps, patient "
        f"fraction {study.privacy.patient_fraction:g}, delta {study.privacy.delta:g}, {request.frames_per_patient} "
        f"frames a patient, {request.test_patients} test patients a hospital, {seeds}; 95 % intervals over patients. "
        "Epsilon is for a whole patient, by RDP."
    )
    text = markdown_table(COLUMNS, [row.cells() for row in rows]) + f"\n\n{caption}\n"
    (out / "utility.md").write_text(text, encoding="utf-8")
    content = {
        "study": study.name,
        "digest": study.digest(),
        "trainable": study.privacy.trainable,
        "trained_values": trained,
        "rows": [row.content() for row in rows],
    }
    (out / "utility.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return text


def num_trained(request: UtilityRequest) -> int:
    """Return how many numbers are trained, each of which gets noise."""
    import torch

    from semc.models import build_model

    with torch.device("meta"):
        network = build_model(request.study)
    shapes = update_shapes(network, request.study.federation.bn)
    return sum(math.prod(shape) for shape in shapes.values())
