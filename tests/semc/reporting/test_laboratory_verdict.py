"""What the laboratory answers: what the figures say, and no more."""

import re

from semc.reporting.bootstrap import PatientBootstrap
from semc.reporting.groups import arm_groups, condition_groups
from semc.reporting.laboratory_findings import find
from semc.reporting.laboratory_verdict import judge_apart, judge_arms
from semc.reporting.left_out_verdict import judge_left_out
from semc.reporting.yardsticks import Yardsticks
from tests.semc.reporting.made_laboratory import all_at, contents_of
from tests.semc.reporting.made_predictions import SITES, compared, left_out, made


def _judged(skill, **changes):
    return judge_arms(PatientBootstrap(arm_groups(compared(skill, **changes))), "fedavg", Yardsticks())


def test_a_sure_gain_is_a_yes_with_its_interval():
    verdict = _judged({"local": 0.5, "fedavg": 0.8, "silo": 0.9, "pooled": 0.9})
    assert verdict.answer == "yes"
    assert re.search(
        r"Together \(fedavg\), 3 centres reach a mean macro-F1 of 0\.\d{3} \(95 % interval", verdict.sentence
    )
    assert "the interval leaves out zero" in verdict.sentence
    assert "(west, n = 120)" in verdict.sentence
    assert re.search(r"it closes \d+ % \(\d+ to \d+ %\)", verdict.sentence)
    details = " ".join(verdict.details)
    assert "Highest of 2 federated arms is silo" in details
    assert "picked after looking" in details
    assert "better at 3 of 3" in details
    assert verdict.caution == "360 test images of 90 patients, 2 seeds."


def test_a_difference_that_can_be_chance_is_not_settled():
    verdict = _judged({"local": 0.7, "fedavg": 0.71, "pooled": 0.71}, patients=20)
    assert verdict.answer == "unclear"
    assert "can be chance" in verdict.sentence
    assert "cannot be said" in verdict.sentence


def test_a_sure_loss_is_a_no_and_names_the_centres():
    verdict = _judged({"local": 0.9, "fedavg": 0.5})
    assert verdict.answer == "no"
    assert "the interval lies below zero" in verdict.sentence
    assert "worse at 3 (north, south, west)" in " ".join(verdict.details)


def test_a_gain_that_leaves_the_worst_centre_behind_is_partial():
    records = [
        made(skill, arm=arm, site=site, seed=seed)
        for seed in (0, 1)
        for arm, skills in {"local": (0.3, 0.4, 0.6), "fedavg": (0.95, 0.95, 0.1)}.items()
        for site, skill in zip(SITES, skills, strict=True)
    ]
    verdict = judge_arms(PatientBootstrap(arm_groups(records)), "fedavg", Yardsticks())
    assert verdict.answer == "partly"
    assert "worse at 1 (west)" in " ".join(verdict.details)


def test_a_gain_whose_sign_hangs_on_the_seed_is_not_settled():
    """Negative control: the patients are sure, the seeds are not, and patients alone would say yes."""
    records = [
        made(skill, arm=arm, seed=seed, patients=100)
        for arm, skills in {"local": (0.6, 0.6), "fedavg": (0.95, 0.5)}.items()
        for seed, skill in enumerate(skills)
    ]
    bootstrap = PatientBootstrap(arm_groups(records))
    assert bootstrap.paired_difference("fedavg", "local").sign == 1
    verdict = judge_arms(bootstrap, "fedavg", Yardsticks())
    assert verdict.answer == "unclear"
    assert "hangs on the seed" in verdict.sentence


def test_what_was_not_run_is_not_known():
    verdict = _judged({"fedavg": 0.8})
    assert verdict.answer == "unknown"
    assert "Training alone was not run" in verdict.sentence
    assert judge_arms(PatientBootstrap({}), "fedavg", Yardsticks()).answer == "unknown"


def test_cautions_name_thin_small_and_missing_centres_and_single_seeds():
    records = [
        *(made(0.8, arm=arm, site="north") for arm in ("local", "fedavg")),
        *(made(0.8, arm=arm, site="south", patients=3, frames=2) for arm in ("local", "fedavg")),
        made(0.8, arm="local", site="west"),
    ]
    caution = judge_arms(PatientBootstrap(arm_groups(records)), "fedavg", Yardsticks()).caution
    assert "1 seed." in caution
    assert "chance in training is not seen" in caution
    assert (
        "Fewer than 5 test patients, so in no mean, worst centre, paired difference or gap: south." in caution
    )
    assert "120 test images of 30 patients" in caution
    assert "In no mean, as some run lacks it: west" in caution


def test_a_centre_that_is_compared_but_not_ranked_is_named() -> None:
    arms = PatientBootstrap(arm_groups([*all_at("north"), *all_at("south", patients=9, frames=20)]))
    verdict = judge_arms(arms, "fedavg", Yardsticks())
    assert "2 centres reach" in verdict.sentence
    assert "too small to be named weakest, with fewer than 10 test patients: south." in verdict.caution


def test_thin_centres_alone_give_no_answer() -> None:
    arms = PatientBootstrap(arm_groups(compared(patients=4)))
    verdict = judge_arms(arms, "fedavg", Yardsticks())
    assert verdict.answer == "unknown"
    assert verdict.sentence == "No centre has 5 test patients, so the arms cannot be compared."
    conditions = [made(0.5, protocol="loco", condition=name, patients=4) for name in ("none", "local")]
    verdict = judge_left_out(PatientBootstrap(condition_groups(conditions)), "fedavg")
    assert (verdict.answer, verdict.sentence.split(",")[0]) == ("unknown", "No centre has 5 test patients")


def test_left_out_centres_are_judged_against_training_alone():
    verdict = judge_left_out(PatientBootstrap(condition_groups(left_out())), "fedavg")
    assert verdict.answer == "partly"
    assert "over 3 left-out centres" in verdict.sentence
    assert "leaves out zero: bn_64." in verdict.sentence
    details = " ".join(verdict.details)
    assert "bn_64 changes that by +" in details
    assert "pooled" not in details
    only_none = [record for record in left_out() if record.condition in ("none", "bn_16")]
    verdict = judge_left_out(PatientBootstrap(condition_groups(only_none)), "fedavg")
    assert (verdict.answer, "was not run" in verdict.sentence) == ("unknown", True)
    assert judge_left_out(PatientBootstrap({}), "fedavg").answer == "unknown"


def test_several_left_out_arms_are_judged_by_the_main_one():
    groups = condition_groups([*left_out("fedavg"), *left_out("silo")])
    verdict = judge_left_out(PatientBootstrap(groups), "silo")
    assert "leaves out zero: bn_64 (silo)." in verdict.sentence
    assert "(fedavg)" not in verdict.sentence + " ".join(verdict.details)


def test_without_a_federation_nothing_is_said_of_training_together() -> None:
    arms = PatientBootstrap(arm_groups(compared({"pooled": 0.9, "pooled+ce": 0.5})))
    verdict = judge_apart(arms, "pooled")
    assert verdict.answer == "unknown"
    assert verdict.sentence.startswith(
        "No federation was run, so nothing is said of training together. pooled reaches"
    )
    (detail,) = verdict.details
    assert re.match(r"pooled\+ce minus pooled: -0\.\d+ \(", detail)
    assert judge_apart(arms, "local").details == ()
    only_local = find(contents_of(predictions=compared({"local": 0.5}))).arms
    assert only_local is not None
    assert "Training alone was not run" not in only_local.verdict.sentence
    thin = PatientBootstrap(arm_groups(compared({"pooled": 0.9}, patients=3)))
    assert "cannot be compared" in judge_apart(thin, "pooled").sentence


def test_the_judged_arm_is_the_named_one_else_the_baseline_else_the_first_federated():
    assert contents_of().judged_arm() == "fedavg"
    assert contents_of(main_arm="silo").judged_arm() == "silo"
    others = compared({"local": 0.5, "silo": 0.8, "fedprox": 0.9})
    assert contents_of(predictions=others).judged_arm() == "silo"
    assert contents_of(predictions=[]).judged_arm() == ""
