"""What a study may do at one hospital: the stricter of what the study proposes and what the policy allows.

The study is shared by all and the policy is the hospital's own, so neither can loosen the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from semc.config import SitePolicy, StudyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.privacy.accounting import Mechanism, rdp_epsilon


@dataclass(frozen=True)
class Limits:
    """The bounds of one study at one hospital."""

    epsilon_total: float
    """Most for everything that ever leaves, at `delta_total`."""
    delta_total: float
    """The policy's delta; the ledger's own counts where it is smaller."""
    epsilon_study: float
    """Most for this study's rounds together, at `delta`."""
    delta: float
    """The smaller of the study's and the policy's."""
    min_noise_multiplier: float
    max_patient_fraction: float
    max_steps_per_round: int
    patients: int
    """The policy's public lower bound: the expected number of patients in a step is q times this."""
    min_patients: int
    accept_unprotected_history: bool
    max_evaluations: int
    """Most answers about the test patients, over all studies."""

    def check(self, mechanism: Mechanism) -> None:
        """Refuse a round whose noise, sampling or length is outside the policy.

        Raises:
            SemcError: POLICY_REFUSED.
        """
        if mechanism.noise_multiplier < self.min_noise_multiplier:
            raise _refused(
                f"A noise multiplier of {mechanism.noise_multiplier:g} is below the least, "
                f"{self.min_noise_multiplier:g}.",
                "raise privacy.noise_multiplier in the study",
            )
        if mechanism.sampling_rate > self.max_patient_fraction:
            raise _refused(
                f"A patient fraction of {mechanism.sampling_rate:g} is above the most, "
                f"{self.max_patient_fraction:g}.",
                "lower privacy.patient_fraction in the study",
            )
        if mechanism.steps > self.max_steps_per_round:
            raise _refused(
                f"{mechanism.steps} steps a round are above the most, {self.max_steps_per_round}.",
                "lower training.local_steps in the study",
            )


def mechanism_of(study: StudyConfig) -> Mechanism:
    """Return what one round of a study with patient-level privacy does.

    Args:
        study: Loaded, so that noise and local steps are given.
    """
    privacy, steps = study.privacy, study.training.local_steps
    assert privacy.noise_multiplier is not None
    assert steps is not None
    return Mechanism(privacy.noise_multiplier, privacy.patient_fraction, steps)


def check_mode(study: StudyConfig, policy: SitePolicy) -> None:
    """Refuse a privacy mode that the hospital does not take part in.

    Raises:
        SemcError: POLICY_REFUSED.
    """
    if study.privacy.mode not in policy.modes:
        raise _refused(
            f"The policy does not allow privacy mode {study.privacy.mode}.",
            f"add it to modes in the policy, or use {' or '.join(policy.modes) or 'no study'}",
        )


def effective(study: StudyConfig, policy: SitePolicy) -> Limits:
    """Return the stricter bounds of a study with patient-level privacy and a policy.

    Raises:
        SemcError: POLICY_REFUSED with what the study proposes and the policy forbids.
        ValueError: The study is in mode none, which has no limits.
    """
    if not study.privacy.private:
        raise ValueError("a study in mode none has no privacy limits")
    check_mode(study, policy)
    budget, privacy = policy.budget, study.privacy
    if budget is None:
        raise _refused("The policy has no privacy budget.", "add a budget section to the policy")
    limits = Limits(
        epsilon_total=budget.epsilon_total,
        delta_total=budget.delta,
        epsilon_study=min(
            privacy.epsilon, budget.epsilon_per_study or budget.epsilon_total, budget.epsilon_total
        ),
        delta=min(privacy.delta, budget.delta),
        min_noise_multiplier=budget.min_noise_multiplier,
        max_patient_fraction=budget.max_patient_fraction,
        max_steps_per_round=budget.max_steps_per_round,
        patients=policy.patients,
        min_patients=max(privacy.min_patients, policy.min_patients),
        accept_unprotected_history=policy.accept_unprotected_history,
        max_evaluations=policy.disclosure.max_evaluations,
    )
    if limits.patients < limits.min_patients:
        raise _refused(
            f"The policy states {limits.patients} patients; this study needs {limits.min_patients}.",
            "take part when the hospital has more patients: with few, strong privacy leaves no useful model",
        )
    limits.check(mechanism_of(study))
    return limits


def plan_cost(study: StudyConfig, rounds: int | None = None) -> float:
    """Return epsilon (RDP, at the study's delta) of a number of rounds; left out: all of them."""
    num_rounds = study.federation.rounds if rounds is None else rounds
    return rdp_epsilon([mechanism_of(study)] * num_rounds, study.privacy.delta)


def check_plan(study: StudyConfig) -> None:
    """Refuse a study whose own rounds cost more than its own epsilon; mode none always passes.

    Raises:
        SemcError: BUDGET_REFUSED.
    """
    if not study.privacy.private:
        return
    cost = plan_cost(study)
    if cost > study.privacy.epsilon:
        raise SemcError(
            ExitCode.BUDGET_REFUSED,
            f"The study's {study.federation.rounds} rounds cost epsilon {cost:.2f} at delta "
            f"{study.privacy.delta:g}, above its own {study.privacy.epsilon:g}.",
            "raise privacy.noise_multiplier (`semc-client ledger plan` gives it), or plan fewer rounds or steps",
        )


def _refused(problem: str, fix: str) -> SemcError:
    return SemcError(ExitCode.POLICY_REFUSED, problem, fix)
