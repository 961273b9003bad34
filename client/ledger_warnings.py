"""What a plan must warn of: what hospital or study would refuse, and what could not work."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from client.ledger_view import History
from client.ledger_wish import Question
from semc.config import SitePolicy, StudyConfig, load_study
from semc.exit_codes import SemcError
from semc.privacy.accounting import rdp_epsilon
from semc.privacy.limits import effective

FEWEST_PATIENTS: Final = 100
WEAK_EPSILON: Final = 10.0
"""Above it an attacker who is told everything else is left with little doubt."""
_CARRIER: Final = "phantom_dp"
_NO_LIMIT: Final = {
    "min_noise_multiplier": 0.0,
    "max_patient_fraction": 1.0,
    "max_steps_per_round": sys.maxsize,
}


def warnings_of(
    asked: Question, study: StudyConfig | None, history: History | None, too_small_for: str | None
) -> tuple[str, ...]:
    """Return the warnings of a plan, one for each reason.

    Args:
        asked: The plan's numbers.
        study: Where numbers left out came from.
        history: Policy and ledger of the hospital; None: any hospital.
        too_small_for: What to expect of the model where that is too little, in words.
    """
    found = [*_of_size(asked, study, history)]
    epsilon = rdp_epsilon([asked.one_round] * asked.rounds, asked.delta)
    if too_small_for is not None:
        found.append(
            f"the site is too small for this epsilon: with {asked.patients} patients and epsilon "
            f"{epsilon:.1f} expect {too_small_for}; it takes more patients or a larger epsilon"
        )
    if epsilon > WEAK_EPSILON:
        found.append(f"epsilon {epsilon:.1f} is weak protection")
    found += _of_cost(asked, study, history)
    if history is not None:
        found += _of_ledger(history)
        if history.policy is not None:
            found += (
                f"the policy refuses this study: {problem}"
                for problem in _refusals(asked, study, history.policy)
            )
    return tuple(found)


def _of_size(asked: Question, study: StudyConfig | None, history: History | None) -> Iterator[str]:
    policy = history.policy if history is not None else None
    fewest = study.privacy.min_patients if study is not None else FEWEST_PATIENTS
    if policy is not None:
        if policy.patients == asked.patients < _least(study, policy):
            return  # in the policy's own words
        fewest = max(fewest, policy.min_patients)
    if asked.patients < fewest:
        yield f"{asked.patients} patients are too few: studies take sites from {fewest} patients on"


def _of_cost(asked: Question, study: StudyConfig | None, history: History | None) -> Iterator[str]:
    """Yield whose limits the rounds break; at the smallest delta, as the hospital counts."""
    deltas = [asked.delta]
    if study is not None:
        deltas.append(study.privacy.delta)
    if history is not None and history.delta is not None:
        deltas.append(history.delta)
    rounds = [asked.one_round] * asked.rounds
    cost = rdp_epsilon(rounds, min(deltas))
    if study is not None and cost > study.privacy.epsilon:
        own = study.privacy.epsilon
        yield f"the rounds cost more than the study's own epsilon {own:g}: it would be refused"
    if history is None:
        return
    budget = history.policy.budget if history.policy is not None else None
    most = budget.epsilon_per_study if budget is not None else None
    if most is not None and cost > most:
        yield f"the policy allows epsilon {most:.2f} for one study: rounds would be refused"
    if history.limit is not None and history.delta is not None:
        total = rdp_epsilon([*history.spent, *rounds], history.delta)
        if total > history.limit:
            yield f"the hospital's budget of {history.limit:.2f} is too small: rounds would be refused"


def _of_ledger(history: History) -> Iterator[str]:
    if history.closed:
        yield "the ledger is closed: no private study runs here"
    if history.policy is None:
        yield "the site has no policy.yaml: no private study runs here"
    elif history.unprotected and not history.policy.accept_unprotected_history:
        yield (
            "studies without patient-level privacy were trained here: only the policy's "
            "accept_unprotected_history allows private ones after them"
        )


def _refusals(asked: Question, study: StudyConfig | None, policy: SitePolicy) -> list[str]:
    """Return each rule of the policy that the numbers break, in the words of :mod:`semc.privacy.limits`."""
    # the rules look at these numbers alone, so where no study is named any private one can carry them
    carrier = study if study is not None else load_study(_CARRIER)
    mechanism = asked.one_round
    private = {
        "noise_multiplier": mechanism.noise_multiplier,
        "patient_fraction": mechanism.sampling_rate,
        "min_patients": 2,  # among the policy's rules instead, see _one_rule_each
    }
    planned = carrier.model_copy(
        update={
            "privacy": carrier.privacy.model_copy(update=private),
            "training": carrier.training.model_copy(update={"local_steps": mechanism.steps}),
        }
    )
    found = []
    for rule in _one_rule_each(policy, _least(study, policy)):
        try:
            effective(planned, rule)
        except SemcError as error:
            found.append(error.problem)
    return list(dict.fromkeys(found))


def _one_rule_each(policy: SitePolicy, least: int) -> Iterator[SitePolicy]:
    """Yield policies with one of the rules each: a check ends at the first that is broken."""
    if policy.budget is None:
        yield policy
        return
    lax = policy.budget.model_copy(update=_NO_LIMIT)
    yield policy.model_copy(update={"min_patients": least, "budget": lax})
    for name in _NO_LIMIT:
        strict = lax.model_copy(update={name: getattr(policy.budget, name)})
        yield policy.model_copy(update={"min_patients": 2, "budget": strict})


def _least(study: StudyConfig | None, policy: SitePolicy) -> int:
    """Return the fewest patients with which the hospital takes part."""
    return max(policy.min_patients, study.privacy.min_patients if study is not None else 0)
