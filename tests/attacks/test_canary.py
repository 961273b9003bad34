"""The canary proves no more epsilon than is claimed, and proves more where the mechanism is broken."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from semc.config import StudyConfig
from semc.privacy.accounting import Mechanism, prv_epsilon, rdp_epsilon
from tests.attacks.audit_row import AuditRow, Control
from tests.attacks.canary import build_game, play, play_with_known_noise
from tests.attacks.lower_bound import epsilon_lower_bound
from tests.attacks.private_site import audited_study

Audit = Callable[[AuditRow], None]

_AUDITED = (pytest.mark.audit, pytest.mark.timeout(1800))
_CASES = [
    # sigma, q, steps of a round, rounds, the canary's frames; trials in each world: real, clipped by image, with a
    # known stream. So many broken ones prove more than is claimed with some errors to spare: a thousand without an
    # error prove 5.3. The quick case has more frames, which are told apart without errors in fewer trials.
    (2.0, 1.0, 1, 1, 16, 60, 100, 60),
    pytest.param(1.0, 1.0, 1, 1, 8, 1500, 1000, 700, marks=_AUDITED),
    pytest.param(2.0, 1.0, 1, 1, 8, 1000, 400, 200, marks=_AUDITED),
    pytest.param(4.0, 0.5, 10, 1, 8, 1000, 400, 0, marks=_AUDITED),
    pytest.param(4.0, 0.5, 1, 4, 8, 1000, 400, 0, marks=_AUDITED),
]


@pytest.mark.parametrize(
    ("sigma", "rate", "steps", "rounds", "frames", "trials", "by_image", "replayed"), _CASES
)
def test_no_more_is_proved_than_is_claimed(
    sigma: float,
    rate: float,
    steps: int,
    rounds: int,
    frames: int,
    trials: int,
    by_image: int,
    replayed: int,
    audit: Audit,
) -> None:
    study = _study(sigma, rate, steps, rounds)
    delta, mechanisms = study.privacy.delta, [Mechanism(sigma, rate, steps * rounds)]
    claimed = rdp_epsilon(mechanisms, delta)
    real = build_game(study, frames)
    assert 0.9 < real.signal <= 1, "the attacker loses little to what it projects away"
    found = epsilon_lower_bound(*play(real, trials), delta)
    twin = build_game(study, frames, image_level=True)
    clipped = epsilon_lower_bound(*play(twin, by_image), delta)
    controls = [Control(f"{frames} frames of a patient clipped one by one", clipped.epsilon, claimed)]
    if replayed:
        known = epsilon_lower_bound(*play_with_known_noise(real, replayed), delta)
        controls.append(Control("noise and draws from the study's seed", known.epsilon, claimed))
    audit(
        AuditRow(
            "white-box canary: epsilon proved at 95 % against epsilon claimed",
            f"sigma {sigma:g}, q {rate:g}, {rounds} round(s) of {steps} step(s), {2 * trials} trials",
            found.epsilon,
            claimed,
            tuple(controls),
            {
                "claimed_prv": prv_epsilon(mechanisms, delta) or float("nan"),
                "true_positive_rate": found.true_positive_rate,
                "false_positive_rate": found.false_positive_rate,
                "counted_trials": found.num_trials,
                "signal": real.signal,
            },
        )
    )


def _study(sigma: float, rate: float, steps: int, rounds: int) -> StudyConfig:
    return audited_study(
        {
            "privacy.noise_multiplier": sigma,
            "privacy.patient_fraction": rate,
            "privacy.max_grad_norm": 0.1,
            "training.local_steps": steps,
            "federation.rounds": rounds,
        }
    )
