"""Members are not told from strangers at epsilon 4, even in a small hospital; without privacy they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from semc.privacy.accounting import Mechanism, noise_for, rdp_epsilon
from tests.attacks.audit_row import AuditRow, Control
from tests.attacks.membership import (
    attack,
    candidates_of,
    halves,
    public_network,
    share_right,
    train_privately,
    train_until_overfit,
)
from tests.attacks.membership_scores import most_area_of, most_true_positives_of
from tests.attacks.private_site import audited_study, phantom_patients

Audit = Callable[[AuditRow], None]

_EPSILON, _RATE = 4.0, 0.1
_OVERFIT_AREA = 0.70


@pytest.mark.parametrize(
    ("candidates", "models", "steps", "most_area", "most_found"),
    [
        # A few hundred scores: their own spread needs a wider limit, and has no 1 % to speak of.
        (100, 6, 20, 0.60, None),
        # 100 members: the fewest patients with which a default policy takes part.
        pytest.param(200, 16, 60, 0.55, 0.03, marks=pytest.mark.audit),
    ],
)
def test_members_are_not_told_from_strangers(
    candidates: int, models: int, steps: int, most_area: float, most_found: float | None, audit: Audit
) -> None:
    study = audited_study(
        {
            "privacy.noise_multiplier": noise_for(_EPSILON, 1e-5, _RATE, steps),
            "privacy.patient_fraction": _RATE,
            "training.local_steps": steps,
            "training.learning_rate": 0.05,
        }
    )
    delta, sigma = study.privacy.delta, study.privacy.noise_multiplier
    assert sigma is not None
    assert rdp_epsilon([Mechanism(sigma, _RATE, steps)], delta) <= _EPSILON
    network = public_network(study, phantom_patients(150, frames=2, seed=12), steps=80)
    known = candidates_of(study, network, phantom_patients(candidates, frames=2, seed=11))
    members_MP = halves(models, candidates, seed=0)
    private = train_privately(study, network, known, members_MP)
    overfit = train_until_overfit(study, network, known, members_MP)
    found = attack(network, known, private, members_MP)
    control = attack(network, known, overfit, members_MP)
    strangers_right = [
        float(np.mean([share_right(network, known, h, ~m) for h, m in zip(heads, members_MP, strict=True)]))
        for heads in (private, overfit)
    ]
    setting = (
        f"epsilon {_EPSILON:g}, sigma {sigma:g}, {candidates // 2} members of {candidates} patients, "
        f"{models} models, each attacked with the others as shadows"
    )
    for name, result in found.items():
        least = _OVERFIT_AREA if name != "loss" else 0.60
        audit(
            AuditRow(
                f"membership by {name}: area under the curve",
                setting,
                result.area,
                most_area,
                (Control("heads overfit without privacy", control[name].area, least),),
                {
                    "most_that_epsilon_allows": most_area_of(_EPSILON, delta),
                    "strangers_right": strangers_right[0],
                    "strangers_right_without_privacy": strangers_right[1],
                },
            )
        )
    if most_found is None:
        return
    best, best_control = (
        max(result.true_positives_at_one_percent for result in results.values())
        for results in (found, control)
    )
    audit(
        AuditRow(
            "membership by the best of the three: true positives at 1 % false ones",
            setting,
            best,
            most_found,
            (Control("heads overfit without privacy", best_control, most_found),),
            {"most_that_epsilon_allows": most_true_positives_of(_EPSILON, delta, 0.01)},
        )
    )
