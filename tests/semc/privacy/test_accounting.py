"""Accounting: stored values, a second library that agrees, and the accountant that says too little refused."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import product

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import pld_privacy_accountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants.analysis import gdp

from semc.exit_codes import ExitCode, SemcError
from semc.privacy.accounting import (
    ORDERS,
    Mechanism,
    _rdp_of_step,
    default_delta,
    noise_for,
    prv_epsilon,
    rdp_epsilon,
)
from semc.privacy.ledger_chain import Chain
from semc.privacy.ledger_events import NO_PREVIOUS, Created, canonical, entry_hash

N_400 = 400**-1.1

GOLDEN = [
    # q, sigma, delta, {steps: (PRV, RDP)}, as Opacus 1.6.0 gave them when the ledger was designed
    (0.05, 1.0, N_400, {200: (3.05, 3.62), 1000: (7.86, 8.92), 3000: (16.2, 18.0)}),
    (0.05, 2.0, N_400, {200: (0.97, 1.14), 1000: (2.51, 2.86), 3000: (4.94, 5.56)}),
    (0.1, 2.0, N_400, {200: (2.23, 2.56), 1000: (5.96, 6.70), 3000: (12.3, 13.6)}),
    (0.1, 4.0, N_400, {200: (0.90, 1.04), 1000: (2.34, 2.66), 3000: (4.63, 5.20)}),
    (0.05, 1.0, 1e-5, {200: (4.78, 5.37), 1000: (11.0, 12.0), 3000: (21.2, 22.8)}),
    (0.05, 2.0, 1e-5, {200: (1.57, 1.72), 1000: (3.71, 4.02), 3000: (6.93, 7.48)}),
    (0.1, 2.0, 1e-5, {200: (3.37, 3.68), 1000: (8.29, 8.94), 3000: (16.2, 17.3)}),
    (0.1, 4.0, 1e-5, {200: (1.43, 1.56), 1000: (3.45, 3.74), 3000: (6.49, 6.99)}),
]

COMPOSITIONS = [
    (Mechanism(1.0, 0.05, 200), Mechanism(2.0, 0.1, 500)),
    (Mechanism(4.0, 1.0, 20), Mechanism(1.5, 0.2, 100), Mechanism(0.8, 0.01, 1000)),
    (Mechanism(20.0, 1.0, 1), Mechanism(0.5, 0.02, 50)),
]


def event(mechanisms: Sequence[Mechanism]) -> dp_accounting.DpEvent:
    """What the mechanisms are to dp-accounting."""
    return dp_accounting.ComposedDpEvent(
        [
            dp_accounting.SelfComposedDpEvent(
                dp_accounting.PoissonSampledDpEvent(
                    one.sampling_rate, dp_accounting.GaussianDpEvent(one.noise_multiplier)
                ),
                one.steps,
            )
            for one in mechanisms
        ]
    )


def other_rdp(mechanisms: Sequence[Mechanism], delta: float) -> float:
    return float(RdpAccountant(ORDERS).compose(event(mechanisms)).get_epsilon(delta))


def other_pld(mechanisms: Sequence[Mechanism], delta: float) -> float:
    accountant = pld_privacy_accountant.PLDAccountant(value_discretization_interval=1e-3)
    return float(accountant.compose(event(mechanisms)).get_epsilon(delta))


@pytest.mark.parametrize(("rate", "noise", "delta", "values"), GOLDEN)
def test_golden(rate: float, noise: float, delta: float, values: dict[int, tuple[float, float]]) -> None:
    for steps, (prv, rdp) in values.items():
        mechanisms = [Mechanism(noise, rate, steps)]
        assert prv_epsilon(mechanisms, delta) == pytest.approx(prv, rel=0.005)
        assert rdp_epsilon(mechanisms, delta) == pytest.approx(rdp, rel=0.005)


RATES = (0.001, 0.01, 0.05, 0.1, 0.3, 0.7, 1.0)
NOISES = (0.5, 1.0, 2.0, 8.0, 30.0)


def integrated_rdp(rate: float, noise: float, order: float) -> float:
    """The definition, by quadrature: log E[((1 - q) + q exp((2 z - 1) / 2 sigma^2))^order] / (order - 1)."""
    z = np.linspace(-12 * noise - order, 12 * noise + order + 2, 40_001)
    with np.errstate(divide="ignore"):
        ratio = np.logaddexp(np.log1p(-rate), np.log(rate) + (2 * z - 1) / (2 * noise**2))
    exponent = order * ratio - z**2 / (2 * noise**2) - 0.5 * math.log(2 * math.pi * noise**2)
    largest = exponent.max()
    return float((largest + np.log(np.exp(exponent - largest).sum() * (z[1] - z[0]))) / (order - 1))


@pytest.mark.parametrize("noise", NOISES)
def test_one_step_equals_its_integral(noise: float) -> None:
    """The limit of 1e-9 is the quadrature's own rounding, near a cost of nothing."""
    for rate in RATES:
        found = _rdp_of_step(noise, rate)
        for index in range(0, int(np.searchsorted(ORDERS, 64)), 5):
            true = integrated_rdp(rate, noise, float(ORDERS[index]))
            assert found[index] == pytest.approx(true, rel=1e-4, abs=1e-9), (rate, ORDERS[index])


def test_two_libraries_agree() -> None:
    """Within 1 %, most within 0.3 %, for every epsilon that anybody would sign.

    dp-accounting adds the alternating series of fractional orders without their signs, which is why it says more
    where small orders decide (epsilon above 12); :func:`test_one_step_equals_its_integral` tells who is right.
    """
    differences = []
    for rate, noise, steps in product(RATES, NOISES, (1, 50, 2000)):
        mechanisms = [Mechanism(noise, rate, steps)]
        accountant = RdpAccountant(ORDERS).compose(event(mechanisms))
        for delta in (1e-3, 1e-5, 1e-7):
            ours, other = rdp_epsilon(mechanisms, delta), float(accountant.get_epsilon(delta))
            if other > 0.05:
                assert ours <= other * 1.000001, (rate, noise, steps, delta)
            if 0.05 < other <= 12:
                differences.append(abs(ours - other) / other)
    assert len(differences) > 150
    assert max(differences) < 0.01
    assert np.quantile(differences, 0.95) < 0.003


@pytest.mark.parametrize("mechanisms", COMPOSITIONS)
def test_two_libraries_agree_on_compositions(mechanisms: tuple[Mechanism, ...]) -> None:
    assert rdp_epsilon(mechanisms, 1e-5) == pytest.approx(other_rdp(mechanisms, 1e-5), rel=0.003)
    shown = prv_epsilon(mechanisms, 1e-5)
    assert shown == pytest.approx(other_pld(mechanisms, 1e-5), rel=0.01)
    assert shown is not None
    assert shown < rdp_epsilon(mechanisms, 1e-5)


@pytest.mark.parametrize("noise", [0.3, 0.45, 1.0, 1000.0])
def test_extreme_settings_have_a_bound(noise: float) -> None:
    for rate in (1e-4, 0.5, 0.999):
        mechanisms = [Mechanism(noise, rate, 1)]
        assert other_pld(mechanisms, 1e-5) <= rdp_epsilon(mechanisms, 1e-5) * 1.001 < math.inf


def test_gdp_says_too_little_and_is_refused() -> None:
    mechanisms = [Mechanism(1.0, 0.05, 40)]
    claimed = gdp.compute_eps_poisson(steps=40, noise_multiplier=1.0, sample_rate=0.05, delta=1e-5)
    assert claimed == pytest.approx(1.62, abs=0.01)
    assert claimed < other_pld(mechanisms, 1e-5) - 0.5
    for name in ("rdp", "gdp", "prv"):
        first = Created(
            seq=1,
            at=datetime.now(UTC),
            previous=NO_PREVIOUS,
            ledger="a" * 32,
            site="north",
            patients=400,
            delta=1e-5,
            epsilon_total=8.0,
        )
        body = canonical(first).replace('"rdp"', f'"{name}"')
        row = (1, body, entry_hash(NO_PREVIOUS, body))
        if name == "rdp":
            assert Chain([row]).created == first
            continue
        with pytest.raises(SemcError, match="unknown kind") as refusal:
            Chain([row])
        assert refusal.value.code is ExitCode.LEDGER_INVALID


mechanisms_drawn = st.builds(
    Mechanism,
    noise_multiplier=st.sampled_from([0.5, 0.9, 2.0, 7.5]),
    sampling_rate=st.sampled_from([0.01, 0.1, 0.6, 1.0]),
    steps=st.integers(1, 300),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(mechanisms_drawn, max_size=6), mechanisms_drawn, st.randoms(use_true_random=False))
def test_cost_never_falls_and_forgets_the_order(
    history: list[Mechanism], proposal: Mechanism, random: object
) -> None:
    before, after = rdp_epsilon(history, 1e-5), rdp_epsilon([*history, proposal], 1e-5)
    assert after > before >= 0
    shuffled = sorted([*history, proposal], key=lambda _: random.random())  # type: ignore[attr-defined]
    assert rdp_epsilon(shuffled, 1e-5) == pytest.approx(after, rel=1e-12)
    split = [Mechanism(one.noise_multiplier, one.sampling_rate, 1) for one in [proposal] * proposal.steps]
    assert rdp_epsilon([*history, *split], 1e-5) == pytest.approx(after, rel=1e-12)


def test_nothing_costs_nothing_and_too_much_is_not_shown() -> None:
    assert rdp_epsilon([], 1e-5) == 0.0
    assert prv_epsilon([], 1e-5) == 0.0
    assert prv_epsilon([Mechanism(0.3, 1.0, 1000)], 1e-5) is None


def test_noise_is_the_least_that_fits() -> None:
    for epsilon, rate, steps in ((8.0, 0.1, 1000), (2.0, 0.05, 200), (1.0, 1.0, 50)):
        noise = noise_for(epsilon, 1e-5, rate, steps)
        assert rdp_epsilon([Mechanism(noise, rate, steps)], 1e-5) <= epsilon
        assert rdp_epsilon([Mechanism(noise - 0.001, rate, steps)], 1e-5) > epsilon
    with pytest.raises(SemcError) as refusal:
        noise_for(0.001, 1e-5, 1.0, 100_000)
    assert refusal.value.code is ExitCode.BUDGET_REFUSED


def test_default_delta_is_below_one_over_the_patients() -> None:
    assert default_delta(400) == 1e-5
    for patients in (2, 400, 35_000, 10**6, 10**9):
        assert default_delta(patients) * patients < 1


@pytest.mark.parametrize("wrong", [(0, 0.1, 1), (math.nan, 0.1, 1), (1, 0, 1), (1, 1.1, 1), (1, 0.1, 0)])
def test_impossible_mechanisms_do_not_exist(wrong: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError):
        Mechanism(*wrong)


def test_reading_the_module_does_not_bring_torch() -> None:
    code = "import sys, semc.privacy.accounting, semc.privacy.ledger; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
