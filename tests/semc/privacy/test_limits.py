"""P1: neither the study nor the policy can loosen the other, whatever both say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semc.config import BudgetConfig, SitePolicy, StudyConfig, parse_study
from semc.config.privacy import PrivacyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.privacy import limits
from semc.privacy.accounting import Mechanism, rdp_epsilon
from semc.privacy.limits import Limits, check_mode, check_plan, effective, mechanism_of, plan_cost

STUDY = parse_study("""
name: private
data: {classes: [head, abdomen, femur], image_size: 32}
model: {backbone: tiny, samc_expansion: 1}
training: {local_steps: 20}
federation: {sites: [north, south], rounds: 5}
privacy: {mode: patient_dp, noise_multiplier: 2.0}
pretraining: {}
""")
MODE_NONE = parse_study("""
name: open
data: {classes: [head, abdomen, femur], image_size: 32}
model: {backbone: tiny, samc_expansion: 1}
training: {local_steps: 20}
federation: {sites: [north, south], rounds: 5}
""")
POLICY = SitePolicy(patients=400, budget=BudgetConfig(epsilon_total=10))


def study_with(**privacy: Any) -> StudyConfig:
    return STUDY.model_copy(update={"privacy": STUDY.privacy.model_copy(update=privacy)})


def policy_with(budget: dict[str, Any] | None = None, **policy: Any) -> SitePolicy:
    changed = BudgetConfig(**{"epsilon_total": 10, **(budget or {})})
    return SitePolicy(**{"patients": 400, "budget": changed, **policy})


deltas = st.sampled_from([1e-3, 1e-4, 1e-5, 1e-7])
epsilons = st.floats(0.1, 90)
privacies = st.builds(
    PrivacyConfig,
    mode=st.just("patient_dp"),
    epsilon=epsilons,
    delta=deltas,
    noise_multiplier=st.floats(0.5, 9),
    patient_fraction=st.floats(0.001, 0.8),
    min_patients=st.integers(2, 500),
)
policies = st.builds(
    SitePolicy,
    patients=st.integers(200, 990),
    min_patients=st.integers(2, 500),
    accept_unprotected_history=st.booleans(),
    budget=st.builds(
        BudgetConfig,
        epsilon_total=epsilons,
        epsilon_per_study=st.none() | epsilons,
        delta=deltas,
        min_noise_multiplier=st.floats(0.3, 3),
        max_patient_fraction=st.floats(0.2, 1),
        max_steps_per_round=st.integers(10, 60),
    ),
)


def laxer_than_either(study: StudyConfig, policy: SitePolicy, found: Limits) -> list[str]:
    """Return where limits allow what the study did not propose or the policy does not allow."""
    privacy, budget = study.privacy, policy.budget
    assert budget is not None
    mechanism = mechanism_of(study)
    wrong = {
        "study epsilon": found.epsilon_study > privacy.epsilon,
        "study epsilon of the policy": found.epsilon_study
        > (budget.epsilon_per_study or budget.epsilon_total),
        "study epsilon above the total": found.epsilon_study > budget.epsilon_total,
        "total": found.epsilon_total > budget.epsilon_total,
        "delta": found.delta > min(privacy.delta, budget.delta),
        "total delta": found.delta_total > budget.delta,
        "delta and patients": found.delta * policy.patients >= 1,
        "patients": policy.patients < max(privacy.min_patients, policy.min_patients),
        "fewest patients": found.min_patients < max(privacy.min_patients, policy.min_patients),
        "noise": mechanism.noise_multiplier < budget.min_noise_multiplier,
        "fraction": mechanism.sampling_rate > budget.max_patient_fraction,
        "steps": mechanism.steps > budget.max_steps_per_round,
        "history": found.accept_unprotected_history and not policy.accept_unprotected_history,
    }
    return [name for name, is_wrong in wrong.items() if is_wrong]


def every_pair(check: Any) -> None:
    """Call a check with limits of pairs that were accepted."""

    @settings(max_examples=400, deadline=None, database=None, derandomize=True)
    @given(privacies, policies)
    def search(privacy: PrivacyConfig, policy: SitePolicy) -> None:
        study = STUDY.model_copy(update={"privacy": privacy})
        try:
            found = effective(study, policy)
        except SemcError:
            return
        check(study, policy, found)

    search()


def test_limits_are_never_laxer_than_either() -> None:
    accepted = []

    def check(study: StudyConfig, policy: SitePolicy, found: Limits) -> None:
        accepted.append(found)
        assert laxer_than_either(study, policy, found) == []

    every_pair(check)
    assert len(accepted) > 40  # how often Hypothesis draws an allowed pair depends on what else is imported


@pytest.mark.parametrize(("name", "swapped"), [("min", max), ("max", min)])
def test_the_search_finds_min_and_max_swapped(
    name: str, swapped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, name, swapped, raising=False)
    laxer: set[str] = set()
    every_pair(lambda *pair: laxer.update(laxer_than_either(*pair)))
    assert laxer


@pytest.mark.parametrize(
    ("study", "policy", "words"),
    [
        (STUDY, policy_with(modes=("none",)), "does not allow privacy mode patient_dp"),
        (STUDY, SitePolicy(patients=400), "no privacy budget"),
        (STUDY, policy_with({"min_noise_multiplier": 2.5}), "below the least, 2.5"),
        (STUDY, policy_with({"max_patient_fraction": 0.05}), "above the most, 0.05"),
        (STUDY, policy_with({"max_steps_per_round": 19}), "above the most, 19"),
        (STUDY, policy_with(patients=99), "states 99 patients; this study needs 100"),
        (study_with(min_patients=401), POLICY, "states 400 patients; this study needs 401"),
        (STUDY, policy_with(min_patients=500), "this study needs 500"),
    ],
)
def test_what_the_policy_forbids_is_named(study: StudyConfig, policy: SitePolicy, words: str) -> None:
    assert effective(STUDY, POLICY).patients == 400
    with pytest.raises(SemcError, match=words) as refusal:
        effective(study, policy)
    assert refusal.value.code is ExitCode.POLICY_REFUSED


def test_mode_none_has_no_limits_but_can_be_forbidden() -> None:
    check_mode(MODE_NONE, POLICY)
    check_plan(MODE_NONE)
    with pytest.raises(ValueError, match="mode none"):
        effective(MODE_NONE, POLICY)
    with pytest.raises(SemcError, match="mode none") as refusal:
        check_mode(MODE_NONE, policy_with(modes=("patient_dp",)))
    assert refusal.value.code is ExitCode.POLICY_REFUSED


def test_a_plan_that_costs_more_than_it_says_is_refused() -> None:
    cost = plan_cost(STUDY)
    assert cost == pytest.approx(rdp_epsilon([Mechanism(2.0, 0.1, 100)], 1e-5))
    check_plan(study_with(epsilon=cost * 1.0001))
    with pytest.raises(SemcError, match="above its own") as refusal:
        check_plan(study_with(epsilon=cost * 0.9999))
    assert refusal.value.code is ExitCode.BUDGET_REFUSED
    assert plan_cost(STUDY, rounds=1) < cost
