"""`semc-client ledger` and the preflight's rows about it: what people and scripts are told, without a path."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from client.cli import app
from client.doctor.privacy import privacy_rows
from client.ledger_making import make
from client.ledger_plan import HEADS, plan_study
from client.ledger_utility import CLASSES, UTILITY, expected, study_noise, utility_class
from client.ledger_wish import Wish
from client.privacy_gate import ledger_place, private_limits, require_ledger
from semc.checkpoint import save_state
from semc.config import SiteConfig, load_policy, load_site, parse_study
from semc.exit_codes import ExitCode, SemcError
from semc.privacy import ledger_store
from semc.privacy.accounting import Mechanism, prv_epsilon, rdp_epsilon
from semc.privacy.ledger import Ledger, Reservation
from semc.privacy.limits import effective, mechanism_of

STUDY_TEXT = """
name: private
data: {classes: [head, abdomen, femur], image_size: 32}
model: {backbone: tiny, experts: 2, samc_expansion: 1, embedding_dim: 8}
training: {local_steps: 20}
federation: {sites: [north, south], rounds: 5}
privacy: {mode: patient_dp, noise_multiplier: 2.0}
pretraining: {}
"""
STUDY = parse_study(STUDY_TEXT)
INCOMING, OUTGOING = "1" * 64, "2" * 64


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    """Return a hospital with a policy, no images and no ledger."""
    (tmp_path / "site.yaml").write_text("{site: north, data: {root: images}}")
    (tmp_path / "study.yaml").write_text(STUDY_TEXT)
    write_policy(tmp_path)
    return load_site(tmp_path / "site.yaml")


def write_policy(folder: Path, **changes: Any) -> None:
    content = {"patients": 400, "budget": {"epsilon_total": 8.0}, **changes}
    (folder / "policy.yaml").write_text(yaml.safe_dump(content))


def run(site: SiteConfig | None, *words: str) -> str:
    """Return what a command prints; it must succeed."""
    place = [] if site is None else ["--site", str(site.policy.parent)]
    done = CliRunner().invoke(app, ["ledger", *words, *place], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    if site is not None:
        assert str(site.policy.parent) not in done.output
    return done.output


def refused(code: ExitCode, site: SiteConfig | None, *words: str) -> str:
    with pytest.raises(SemcError) as refusal:
        run(site, *words)
    assert refusal.value.code is code
    return refusal.value.line()


def charge(site: SiteConfig, rounds: int, *, answered: bool = True) -> Ledger:
    ledger = require_ledger(site)
    for number in range(rounds):
        proposal = Reservation(STUDY.digest(), number, INCOMING, mechanism_of(STUDY))
        reserved = ledger.reserve(proposal, private_limits(STUDY, site)[1])
        if answered:
            ledger.commit(reserved.seq, OUTGOING)
    return ledger


# init, show, close


def test_a_ledger_is_made_shown_and_closed(site: SiteConfig) -> None:
    refused(ExitCode.LEDGER_INVALID, site, "show")
    promise = run(site, "init", "--patients", "400")
    assert "no patient is charged more than epsilon 8 at delta 1e-05" in promise
    refused(ExitCode.LEDGER_INVALID, site, "init", "--patients", "400")
    ledger = charge(site, 3)
    charge(site, 1, answered=False)

    shown = json.loads(run(site, "show", "--format", "json"))
    spent = [mechanism_of(STUDY)] * 4
    assert shown["epsilon"] == pytest.approx(rdp_epsilon(spent, 1e-5))
    assert shown["epsilon_prv"] == pytest.approx(prv_epsilon(spent, 1e-5))
    assert shown["left"] == pytest.approx(8.0 - shown["epsilon"])
    assert shown["head"] == ledger.head().hash
    (row,) = shown["studies"]
    assert (row["study"], row["charged"], row["answered"], row["refused"]) == (STUDY.digest()[:12], 4, 3, 0)

    text = run(site, "show")
    assert f"epsilon {shown['epsilon']:.2f} of 8.00 (RDP, decides; PRV {shown['epsilon_prv']:.2f})" in text
    assert shown["head"] in re.sub(r"\s", "", text)

    assert "closed" in run(site, "close", "--reason", "left the federation")
    text = run(site, "show")
    assert "closed for good: left the federation" in text
    assert "left    none (closed for good)" in text
    shown = json.loads(run(site, "show", "--format", "json"))
    assert (shown["closed"], shown["left"]) == ("left the federation", 0)
    with pytest.raises(SemcError):
        charge(site, 1)
    refused(ExitCode.USAGE, site, "close", "--reason", "  ")


def test_init_asks_for_the_policys_number(site: SiteConfig) -> None:
    refused(ExitCode.USAGE, site, "init", "--patients", "40")
    assert "semc-client ledger init --site SITE --patients 400" in refused(ExitCode.USAGE, site, "init")
    assert not ledger_place(site).exists()
    site.policy.unlink()
    refused(ExitCode.POLICY_REFUSED, site, "init", "--patients", "400")
    refused(ExitCode.POLICY_REFUSED, site, "init")


def test_show_tells_which_number_holds_where_policy_and_ledger_differ(site: SiteConfig) -> None:
    run(site, "init", "--patients", "400")
    assert "policy says" not in run(site, "show")
    write_policy(site.policy.parent, patients=500, budget={"epsilon_total": 20, "delta": 1e-4})
    text = run(site, "show")
    assert "epsilon: policy says 20, the ledger promised 8: 8 holds" in text
    assert "patients: policy says 500, the ledger promised 400: 500 holds" in text
    assert "delta: policy says 0.0001, the ledger promised 1e-05: 1e-05 holds" in text
    assert "of 8.00 (RDP" in text
    write_policy(site.policy.parent, budget={"epsilon_total": 3})
    shown = json.loads(run(site, "show", "--format", "json"))
    assert shown["differences"] == ["epsilon: policy says 3, the ledger promised 8: 3 holds"]


def left_behind(site: SiteConfig, digest: str, *folders: str) -> None:
    """Leave what a study keeps at a site: saved states, by the names of their folders."""
    for folder in folders:
        save_state(site.state_directory / digest[:16] / folder, {"weight": torch.zeros(1)}, {})


def test_studies_from_before_the_ledger_are_noted(site: SiteConfig) -> None:
    left_behind(site, STUDY.digest(), "round-00001")
    (site.state_directory / "logs").mkdir()
    assert "Noted: 1 studies" in run(site, "init", "--patients", "400")
    assert "without patient-level privacy" in run(site, "show")
    with pytest.raises(SemcError, match="mode none") as refusal:
        charge(site, 1)
    assert refusal.value.code is ExitCode.POLICY_REFUSED
    write_policy(site.policy.parent, accept_unprotected_history=True)
    charge(site, 1)


def test_an_adopted_model_and_private_replies_are_no_unprotected_study(site: SiteConfig) -> None:
    left_behind(site, "a" * 64, "adopted")
    left_behind(site, "b" * 64, "round-00001", "outbox/reply-00001")
    assert "Noted" not in run(site, "init", "--patients", "400")
    charge(site, 1)


def test_a_crash_leaves_no_ledger_that_lacks_earlier_studies(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is left is whole, or missing, or refused: a private round never runs without the entry."""
    for digit in "abc":
        left_behind(site, digit * 64, "round-00001")
    place = ledger_place(site)
    for point in ("_insert", "sync", "write_anchor"):
        real = getattr(ledger_store, point)
        calls = itertools.count()

        def crash(*args: Any, real: Any = real, calls: Any = calls, point: str = point) -> Any:
            if next(calls) == (2 if point == "_insert" else 0):
                raise KeyboardInterrupt
            return real(*args)

        with monkeypatch.context() as patch:
            patch.setattr(ledger_store, point, crash)
            with pytest.raises(KeyboardInterrupt):
                make(site, 400)
        with pytest.raises(SemcError) as refusal:
            charge(site, 1)
        assert refusal.value.code is ExitCode.LEDGER_INVALID
        place.database.unlink(missing_ok=True)
    run(site, "init", "--patients", "400")
    assert require_ledger(site).head().seq == 4
    with pytest.raises(SemcError, match="mode none"):
        charge(site, 1)


# plan


def test_a_plan_finds_noise_for_epsilon_and_epsilon_for_noise() -> None:
    words = (
        "plan",
        "--patients",
        "400",
        "--rounds",
        "20",
        "--steps",
        "10",
        "--rate",
        "0.1",
        "--format",
        "json",
    )
    found = json.loads(run(None, *words, "--epsilon", "4"))
    assert found["epsilon"] <= 4
    assert found["epsilon"] == pytest.approx(rdp_epsilon([Mechanism(found["noise"], 0.1, 200)], 1e-5))
    assert found["noise_to_signal"] == pytest.approx(found["noise"] * found["trained_weights"] ** 0.5 / 40)
    again = json.loads(run(None, *words, "--noise", str(found["noise"])))
    assert again["epsilon"] == found["epsilon"]
    rounds = [point["rounds"] for point in found["points"]]
    epsilons = [point["epsilon"] for point in found["points"]]
    assert rounds == sorted(set(rounds))
    assert rounds[-1] == 20
    assert epsilons == sorted(epsilons)


def test_a_plan_takes_what_is_left_out_from_study_policy_and_ledger(site: SiteConfig) -> None:
    study = str(site.policy.parent / "study.yaml")
    before = json.loads(run(site, "plan", "--study", study, "--format", "json"))
    assert (before["patients"], before["rounds"], before["steps"], before["noise"]) == (400, 5, 20, 2.0)
    assert before["points"][-1]["with_history"] == pytest.approx(before["epsilon"])
    run(site, "init", "--patients", "400")
    charge(site, 5)
    after = json.loads(run(site, "plan", "--study", study, "--format", "json"))
    assert after["epsilon"] == before["epsilon"]
    both = rdp_epsilon([mechanism_of(STUDY)] * 10, 1e-5)
    assert after["points"][-1]["with_history"] == pytest.approx(both)
    assert f"epsilon {both:.2f} of 8.00 after this study" in run(site, "plan", "--study", study)
    write_policy(site.policy.parent, budget={"epsilon_total": 3.0}, min_patients=500)
    warnings = " ".join(json.loads(run(site, "plan", "--study", study, "--format", "json"))["warnings"])
    assert "budget of 3.00 is too small" in warnings
    assert "the policy refuses this study" in warnings


def warned(site: SiteConfig, *words: str) -> list[str]:
    found: list[str] = json.loads(run(site, "plan", *words, "--format", "json"))["warnings"]
    return found


def test_a_plan_warns_of_the_policys_limit_for_one_study(site: SiteConfig) -> None:
    study = str(site.policy.parent / "study.yaml")
    run(site, "init", "--patients", "400")
    write_policy(site.policy.parent, budget={"epsilon_total": 8.0, "epsilon_per_study": 4.0})
    assert warned(site, "--study", study) == []
    assert rows(site)["privacy of the study"][0] == "passed"
    write_policy(site.policy.parent, budget={"epsilon_total": 8.0, "epsilon_per_study": 2.0})
    line = "the policy allows epsilon 2.00 for one study: rounds would be refused"
    assert warned(site, "--study", study) == [line]
    assert rows(site)["privacy of the study"][2] is ExitCode.BUDGET_REFUSED
    words = ("--rounds", "5", "--steps", "20", "--rate", "0.1", "--noise", "2")
    assert line in warned(site, *words)


def test_a_larger_delta_by_hand_hides_no_limit(site: SiteConfig) -> None:
    words = ("--study", str(site.policy.parent / "study.yaml"), "--delta", "1e-3")
    looser = json.loads(run(site, "plan", *words, "--format", "json"))["epsilon"]
    own = looser + 0.1
    write_policy(site.policy.parent, budget={"epsilon_total": 8.0, "epsilon_per_study": own})
    assert any("for one study" in line for line in warned(site, *words))


def test_numbers_by_hand_are_held_against_the_policy_rule_by_rule(site: SiteConfig) -> None:
    budget = {
        "epsilon_total": 100.0,
        "min_noise_multiplier": 1.5,
        "max_patient_fraction": 0.05,
        "max_steps_per_round": 5,
    }
    words = ("--rounds", "2", "--steps", "10", "--rate", "0.1", "--noise", "1.2")
    write_policy(site.policy.parent, patients=150, min_patients=200, budget=budget)
    for more in ((), ("--study", "phantom_dp")):
        refusals = [line for line in warned(site, *words, *more) if "policy refuses" in line]
        assert refusals == [
            "the policy refuses this study: The policy states 150 patients; this study needs 200.",
            "the policy refuses this study: A noise multiplier of 1.2 is below the least, 1.5.",
            "the policy refuses this study: A patient fraction of 0.1 is above the most, 0.05.",
            "the policy refuses this study: 10 steps a round are above the most, 5.",
        ]
    write_policy(site.policy.parent, min_patients=200, budget={"epsilon_total": 100.0})
    assert not any("policy" in line for line in warned(site, *words))
    few = warned(site, *words, "--patients", "150")
    assert "150 patients are too few: studies take sites from 200 patients on" in few
    write_policy(site.policy.parent, modes=["none"])
    refusals = [line for line in warned(site, *words) if "policy" in line]
    assert refusals == ["the policy refuses this study: The policy does not allow privacy mode patient_dp."]


def test_a_plan_tells_that_the_ledger_runs_no_private_study(site: SiteConfig) -> None:
    study = str(site.policy.parent / "study.yaml")
    left_behind(site, STUDY.digest(), "round-00001")
    run(site, "init", "--patients", "400")
    assert any("accept_unprotected_history" in line for line in warned(site, "--study", study))
    write_policy(site.policy.parent, accept_unprotected_history=True)
    assert warned(site, "--study", study) == []
    run(site, "close", "--reason", "left the federation")
    assert warned(site, "--study", study) == ["the ledger is closed: no private study runs here"]


def test_a_plan_without_a_policy_says_what_is_missing(site: SiteConfig) -> None:
    site.policy.unlink()
    study = str(site.policy.parent / "study.yaml")
    line = refused(ExitCode.USAGE, site, "plan", "--study", study)
    assert "The site has no policy.yaml that states its patients." in line
    assert "--study" not in line
    alone = refused(ExitCode.USAGE, None, "plan", "--study", study)
    assert "--site" in alone
    assert "--study" not in alone
    assert any("no policy.yaml" in line for line in warned(site, "--study", study, "--patients", "400"))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "--patients is missing"),
        (("--patients", "400"), "--rounds is missing"),
        (("--patients", "400", "--rounds", "2", "--steps", "2", "--rate", "0.1"), "--epsilon or --noise"),
        (("--epsilon", "1", "--noise", "2"), "contradict"),
        (
            (
                "--patients",
                "400",
                "--rounds",
                "2",
                "--steps",
                "2",
                "--rate",
                "0.1",
                "--noise",
                "2",
                "--delta",
                "0.01",
            ),
            "below 1 / patients",
        ),
        (("--study", "phantom_smoke"), "no patient-level privacy"),
    ],
)
def test_a_plan_that_says_too_little_is_refused(words: tuple[str, ...], problem: str) -> None:
    assert problem in refused(ExitCode.USAGE, None, "plan", *words)


def test_a_chart_is_one_page_that_loads_nothing(tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    words = ("--patients", "400", "--rounds", "9", "--steps", "10", "--rate", "0.1", "--epsilon", "2")
    assert f"chart        {page}\n" in run(None, "plan", *words, "--chart", str(page))
    missing = tmp_path / "missing"
    assert "does not exist" in refused(
        ExitCode.USAGE, None, "plan", *words, "--chart", str(missing / "plan.html")
    )
    assert not missing.exists()
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", text)
    assert "this study, RDP (decides)" in text
    assert "epsilon 2.00 at delta 1e-05" in text


def wish(noise: float, patients: int = 100) -> Wish:
    """Return one round of 200 steps with heads of the paper's network."""
    return Wish(patients=patients, rounds=1, steps=200, rate=0.1, noise=noise)


def test_the_warning_fires_where_the_measured_table_says_so() -> None:
    for measured, kept in UTILITY:
        sigma = measured * 0.999 * 0.1 * 100 * (200 / HEADS) ** 0.5
        if sigma < 0.3:
            continue  # less noise than a study may have
        found = plan_study(wish(sigma), None, None)
        assert found.study_noise == pytest.approx(measured, rel=0.01)
        assert found.share == kept.rare
        too_small = any("too small for this epsilon" in warning for warning in found.warnings)
        assert too_small == (utility_class(kept.rare)[0] in ("weak", "none")), measured
    tiny = plan_study(wish(2.0, patients=40), None, None)
    assert any("40 patients are too few" in warning for warning in tiny.warnings)


@pytest.mark.parametrize(
    ("patients", "epsilon", "warned"),
    [(100, 8.0, True), (100, 1.0, True), (400, 2.0, False), (400, 1.0, True), (1500, 1.0, False)],
)
def test_sites_are_told_that_they_are_too_small(patients: int, epsilon: float, warned: bool) -> None:
    asked = Wish(patients=patients, rounds=20, steps=10, rate=0.1, epsilon=epsilon)
    warnings = plan_study(asked, None, None).warnings
    assert any("too small for this epsilon" in warning for warning in warnings) == warned


def test_expectations_grow_with_patients_and_fall_with_noise() -> None:
    assert expected(1e9).rare == expected(1e9).even == 0
    noises = [study_noise(sigma, 5000, 0.1, 100, 200) for sigma in (0.5, 1, 2, 4, 8, 16)]
    assert noises == sorted(noises)
    shares = [expected(noise) for noise in noises]
    assert [kept.rare for kept in shares] == sorted((kept.rare for kept in shares), reverse=True)
    assert all(kept.rare <= kept.even for kept in shares)
    assert study_noise(2, 5000, 0.1, 400, 200) == pytest.approx(study_noise(2, 5000, 0.1, 100, 200) / 4)
    assert [least for _, least, _ in CLASSES] == sorted((least for _, least, _ in CLASSES), reverse=True)
    assert CLASSES[-1][1] == 0


# The preflight


def rows(site: SiteConfig, study: bool = True) -> dict[str, tuple[str, str, ExitCode]]:
    name = str(site.policy.parent / "study.yaml") if study else None
    found = {row.name: (row.state, row.found, row.code) for row in privacy_rows(site, name)}
    assert str(site.policy.parent) not in str(found)
    return found


def test_the_preflight_prices_a_study(site: SiteConfig) -> None:
    assert rows(site, study=False)["privacy ledger"][0] == "warning"
    assert rows(site)["privacy of the study"][2] is ExitCode.LEDGER_INVALID
    run(site, "init", "--patients", "400")
    found = rows(site)
    assert {state for state, _, _ in found.values()} == {"passed"}
    assert "epsilon 2.58 of 8.00" in found["privacy of the study"][1]
    before = require_ledger(site).head()
    rows(site)
    assert require_ledger(site).head() == before, "pricing charges nothing"
    write_policy(site.policy.parent, budget={"epsilon_total": 2.0})
    assert rows(site)["privacy of the study"][2] is ExitCode.BUDGET_REFUSED
    write_policy(site.policy.parent, modes=["none"])
    assert rows(site)["privacy of the study"][2] is ExitCode.POLICY_REFUSED


def test_the_preflight_finds_what_is_damaged(site: SiteConfig) -> None:
    run(site, "init", "--patients", "400")
    place = ledger_place(site)
    place.anchor.unlink()
    assert rows(site, study=False)["privacy ledger"][2] is ExitCode.LEDGER_INVALID
    site.policy.write_text("patients: none")
    assert rows(site)["policy"][2] is ExitCode.CONFIG_INVALID


def test_without_a_policy_nothing_is_wrong(site: SiteConfig) -> None:
    site.policy.unlink()
    assert {state for state, _, _ in rows(site, study=False).values()} == {"skipped"}


def test_the_example_policy_allows_a_study(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "client" / "policy.example.yaml"
    policy = load_policy(example)
    assert policy.budget is not None
    assert effective(STUDY, policy).epsilon_study == policy.budget.epsilon_per_study
    (tmp_path / "policy.yaml").write_text(
        example.read_text(encoding="utf-8").replace(
            "# accept_unprotected_history", "accept_unprotected_history"
        )
    )
    assert load_policy(tmp_path / "policy.yaml").accept_unprotected_history
