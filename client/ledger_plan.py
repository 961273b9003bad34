"""What a study with patient-level privacy would cost a hospital's patients, before anybody commits to it.

No image is opened and nothing is charged. Where the site is too small the plan says so; epsilon is never weakened to
make a model look possible.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Final

from client.ledger_utility import MEASURED, UtilityClass, expected, study_noise, utility_class
from client.ledger_view import History, shown
from client.ledger_warnings import warnings_of
from client.ledger_wish import Question, Wish, complete
from semc.config import StudyConfig
from semc.privacy.accounting import prv_epsilon, rdp_epsilon

HEADS: Final = 49_000
"""Trained weights of classifiers and gate of the paper's network, where no study is named."""
_POINTS: Final = 20
_BAR: Final = 40


@dataclass(frozen=True)
class Point:
    """The cost after some rounds."""

    rounds: int
    epsilon: float
    """RDP, which decides."""
    epsilon_prv: float | None
    with_history: float | None
    """RDP together with what the ledger holds; None without a site."""


@dataclass(frozen=True)
class Plan:
    """A study's cost and what to expect of it at one hospital."""

    patients: int
    frames: int
    rounds: int
    steps: int
    rate: float
    noise: float
    delta: float
    epsilon: float
    epsilon_prv: float | None
    trained_weights: int
    noise_to_signal: float
    """sigma sqrt(d) / (q n): norm of a step's noise over the largest sum that its patients can have."""
    study_noise: float
    """The same for the mean of all steps, by which the expectation is looked up."""
    share: float
    """Of the balanced accuracy without noise, where classes are rare: the cautious figure."""
    share_even: float
    """The same where classes are even."""
    utility: UtilityClass
    expectation: str
    measured: str
    limit: float | None
    """The hospital's, for everything; None without a site."""
    points: tuple[Point, ...]
    warnings: tuple[str, ...]

    def kept(self) -> str:
        """Return, in words, how much of the accuracy without privacy is to be expected."""
        if self.share == 0:
            return "more noise than anything measured"
        return (
            f"{self.share:.0%} of the balanced accuracy without noise where classes are rare, "
            f"{self.share_even:.0%} where they are even"
        )

    def to_json(self) -> str:
        """Return the plan as one JSON object."""
        return json.dumps(asdict(self), indent=2)

    def print_text(self) -> None:
        """Print the plan for people."""
        from rich.console import Console

        console = Console(highlight=False, markup=False, soft_wrap=True)
        last = self.points[-1]
        lines = [
            f"plan         {self.patients} patients, up to {self.frames} frames each; {self.rounds} rounds of "
            f"{self.steps} steps, patient fraction {self.rate:g}",
            f"noise        noise_multiplier {self.noise:g}",
            f"epsilon      {self.epsilon:.2f} (RDP, decides; PRV {shown(self.epsilon_prv)}) at delta {self.delta:g}",
            f"noise/signal {self.noise_to_signal:.1f} a step, {self.study_noise:.2f} over the study "
            f"({self.trained_weights:,} trained weights)",
            f"expect       {self.expectation} ({self.kept()}; measured on {self.measured})",
        ]
        if last.with_history is not None:
            of = "" if self.limit is None else f" of {self.limit:.2f}"
            lines.append(
                f"ledger       epsilon {last.with_history:.2f}{of} after this study, with everything before it"
            )
        console.print("\n".join(lines))
        most = max(point.with_history or point.epsilon for point in self.points)
        for point in _thinned(self.points, 8):
            value = point.with_history or point.epsilon
            console.print(f"  round {point.rounds:5d}  {value:7.2f}  " + "█" * round(_BAR * value / most))
        for warning in self.warnings:
            console.print(f"warning      {warning}")


def plan_study(wish: Wish, study: StudyConfig | None, history: History | None) -> Plan:
    """Return the plan of a study at a hospital.

    Args:
        wish: What was asked.
        study: Where numbers left out come from.
        history: Policy and ledger of the hospital; None: any hospital.

    Raises:
        SemcError: USAGE where a number is missing or contradicts another; BUDGET_REFUSED where no noise is enough.
    """
    asked = complete(wish, study, history)
    mechanism = asked.one_round
    points = _points(asked, history)
    weights = trained_weights(study) if study is not None else HEADS
    noise = study_noise(
        mechanism.noise_multiplier,
        weights,
        mechanism.sampling_rate,
        asked.patients,
        mechanism.steps * asked.rounds,
    )
    found = expected(noise)
    kept, expectation = utility_class(found.rare)
    return Plan(
        patients=asked.patients,
        frames=asked.frames,
        rounds=asked.rounds,
        steps=mechanism.steps,
        rate=mechanism.sampling_rate,
        noise=mechanism.noise_multiplier,
        delta=asked.delta,
        epsilon=points[-1].epsilon,
        epsilon_prv=points[-1].epsilon_prv,
        trained_weights=weights,
        noise_to_signal=mechanism.noise_multiplier
        * math.sqrt(weights)
        / (mechanism.sampling_rate * asked.patients),
        study_noise=noise,
        share=found.rare,
        share_even=found.even,
        utility=kept,
        expectation=expectation,
        measured=MEASURED,
        limit=history.limit if history is not None else None,
        points=points,
        warnings=warnings_of(asked, study, history, expectation if kept in ("weak", "none") else None),
    )


def trained_weights(study: StudyConfig) -> int:
    """Return how many weights a study trains: its network is built, with random weights, and counted."""
    from semc.models import build_model
    from semc.models.semc_net import SEMCNet
    from semc.models.trainable import train_only

    untrained = study.model_copy(update={"model": study.model.model_copy(update={"weights": "none"})})
    network = build_model(untrained)
    assert isinstance(network, SEMCNet)
    train_only(network, study.privacy.trainable)
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def _points(asked: Question, history: History | None) -> tuple[Point, ...]:
    """Return the cost after up to 20 numbers of rounds, the last included."""
    found = []
    for number in sorted({max(1, round(asked.rounds * part / _POINTS)) for part in range(1, _POINTS + 1)}):
        spent = [asked.one_round] * number
        total = None
        if history is not None and history.delta is not None:
            total = rdp_epsilon([*history.spent, *spent], history.delta)
        found.append(Point(number, rdp_epsilon(spent, asked.delta), prv_epsilon(spent, asked.delta), total))
    return tuple(found)


def _thinned(points: tuple[Point, ...], most: int) -> list[Point]:
    """Return evenly spread points, the last among them."""
    stride = math.ceil(len(points) / most)
    return list(points[::-1][::stride][::-1])
