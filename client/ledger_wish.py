"""What a plan is asked about: the command line's numbers, filled up from a study and the hospital's policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

from client.ledger_view import History
from semc.config import StudyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.privacy.accounting import Mechanism, default_delta, noise_for

FRAMES: Final = 16

ValueT = TypeVar("ValueT", int, float)


@dataclass(frozen=True)
class Wish:
    """What was asked on the command line; None: take it from the study or the policy."""

    patients: int | None = None
    frames: int | None = None
    rounds: int | None = None
    steps: int | None = None
    rate: float | None = None
    epsilon: float | None = None
    noise: float | None = None
    delta: float | None = None


@dataclass(frozen=True)
class Question:
    """A wish with every number given."""

    patients: int
    frames: int
    rounds: int
    one_round: Mechanism
    delta: float


def complete(wish: Wish, study: StudyConfig | None, history: History | None) -> Question:
    """Return a wish with what it leaves out taken from study and policy; the smallest delta counts.

    Raises:
        SemcError: USAGE where a number is missing or contradicts another; BUDGET_REFUSED where no noise is enough.
    """
    if study is not None and not study.privacy.private:
        raise _usage("The study has no patient-level privacy.", "name a study with privacy.mode patient_dp")
    if wish.epsilon is not None and wish.noise is not None:
        raise _usage("--epsilon and --noise contradict each other.", "give one; the other follows")
    privacy = study.privacy if study is not None else None
    patients = wish.patients if wish.patients is not None else _stated_patients(history)
    rounds = _given("--rounds", wish.rounds, study.federation.rounds if study is not None else None)
    steps = _given("--steps", wish.steps, study.training.local_steps if study is not None else None)
    rate = _given("--rate", wish.rate, privacy.patient_fraction if privacy is not None else None)
    known = [privacy.delta] if privacy is not None else []
    if history is not None and history.delta is not None:
        known.append(history.delta)
    delta = wish.delta if wish.delta is not None else min(known, default=default_delta(patients))
    if delta * patients >= 1:
        raise _usage("delta must be below 1 / patients.", "lower --delta")
    if wish.epsilon is not None:
        noise = noise_for(wish.epsilon, delta, rate, rounds * steps)
    else:
        noise = _given(
            "--epsilon or --noise", wish.noise, privacy.noise_multiplier if privacy is not None else None
        )
    frames = wish.frames or (privacy.frames_per_patient if privacy is not None else FRAMES)
    return Question(patients, frames, rounds, Mechanism(noise, rate, steps), delta)


def _given(name: str, wished: ValueT | None, known: ValueT | None) -> ValueT:
    """Return what was asked, or what is known otherwise."""
    found = wished if wished is not None else known
    if found is None:
        raise _usage(f"{name} is missing.", "give it, or --study STUDY")
    return found


def _stated_patients(history: History | None) -> int:
    """Return the policy's number of patients; a study states none."""
    if history is None:
        raise _usage(
            "--patients is missing.", "give it, or --site SITE for what the hospital's policy states"
        )
    if history.policy is None:
        raise _usage(
            "The site has no policy.yaml that states its patients.",
            "give --patients, or write policy.yaml (policy.example.yaml explains it)",
        )
    return history.policy.patients


def _usage(problem: str, fix: str) -> SemcError:
    return SemcError(ExitCode.USAGE, problem, fix)
