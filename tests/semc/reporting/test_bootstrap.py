"""The patient bootstrap equals a slow loop over explicitly drawn patients, and pairs, and is wide enough."""

from dataclasses import replace

import numpy as np
import pytest

from semc.exit_codes import ExitCode, SemcError
from semc.metrics import Confusion
from semc.reporting.bootstrap import PatientBootstrap
from semc.reporting.groups import arm_groups, condition_groups, unadapted
from semc.reporting.patient_draws import draw_patients, scores_of_counts
from semc.reporting.predictions import Predictions
from semc.reporting.thin_sites import note_on_thin, thin_sites
from tests.semc.reporting.made_predictions import SITES, compared, crossed, left_out, made

METRICS = ("macro_f1", "balanced_accuracy", "accuracy")


def _slow_scores(records, metric, draws, seed):
    """Score every record on every draw by repeating the images of each drawn patient; the first is no draw."""
    scores = {}
    for record in records:
        weights = draw_patients(record.test_site, record.num_patients, draws, seed).astype(int)
        predicted = record.predicted_B.tolist()
        for number, row in enumerate(weights):
            labels, called = [], []
            for patient, times in enumerate(row):
                for _ in range(times):
                    for image, owner in enumerate(record.patients):
                        if owner == patient:
                            labels.append(record.labels[image])
                            called.append(predicted[image])
            confusion = Confusion.from_predictions(labels, called, record.num_classes)
            scores[record.arm, record.seed, record.test_site, number] = getattr(confusion, metric)
    return scores


def _interval(values):
    return np.quantile(values[1:], [0.025, 0.975]).tolist()


@pytest.mark.parametrize("metric", METRICS)
def test_equals_a_slow_loop_over_drawn_patients(metric):
    draws, seed = 25, 7
    records = compared(patients=12, frames=3)
    slow = _slow_scores(records, metric, draws, seed)
    found = PatientBootstrap(arm_groups(records), metric, draws, seed)

    def at(arm, site, number):
        return (slow[arm, 0, site, number] + slow[arm, 1, site, number]) / 2

    def mean(arm, number):
        return sum(at(arm, site, number) for site in SITES) / 3

    numbers = range(draws + 1)
    for site in SITES:
        expected = [at("silo", site, number) for number in numbers]
        estimate = found.site("silo", site)
        assert [estimate.value, estimate.low, estimate.high] == pytest.approx(
            [expected[0], *_interval(expected)]
        )
        assert estimate.by_seed == pytest.approx([slow["silo", seed, site, 0] for seed in (0, 1)])
    expected = [mean("silo", number) for number in numbers]
    estimate = found.mean("silo")
    assert [estimate.value, estimate.low, estimate.high] == pytest.approx([expected[0], *_interval(expected)])
    expected = [min(at("silo", site, number) for site in SITES) for number in numbers]
    worst = found.worst("silo")
    assert worst.site == "west"
    assert [worst.estimate.value, worst.estimate.low, worst.estimate.high] == pytest.approx(
        [expected[0], *_interval(expected)]
    )
    expected = [mean("silo", number) - mean("local", number) for number in numbers]
    difference = found.paired_difference("silo", "local")
    estimate = difference.estimate
    assert [estimate.value, estimate.low, estimate.high] == pytest.approx([expected[0], *_interval(expected)])
    assert difference.share_above_zero == sum(value > 0 for value in expected[1:]) / draws
    expected = [
        (mean("silo", number) - mean("local", number)) / (mean("pooled", number) - mean("local", number))
        for number in numbers
    ]
    share = found.gap_closed("silo", "local", "pooled").share
    assert [share.value, share.low, share.high] == pytest.approx([expected[0], *_interval(expected)])


@pytest.mark.parametrize("metric", METRICS)
def test_scores_of_counts_are_those_of_confusion(metric):
    counts = np.random.default_rng(1).integers(0, 4, (200, 4, 4))
    counts[:50, 2] = 0  # a class without images
    counts[:, 0, 0] += 1
    found = scores_of_counts(counts.astype(float), metric)
    assert found.tolist() == pytest.approx([getattr(Confusion(matrix), metric) for matrix in counts])


def test_intervals_agree_with_an_independent_bootstrap():
    """Drawn by another generator, another way: patients chosen one by one."""
    record = made(0.7, patients=40, clustered=0.6)
    found = PatientBootstrap({"a": [record]}, "accuracy").site("a", "north")
    right_P = np.asarray(record.predicted_B == np.asarray(record.labels)).reshape(40, 4).mean(axis=1)
    rng = np.random.default_rng(99)
    loop = [right_P[rng.integers(0, 40, 40)].mean() for _ in range(4000)]
    assert [found.low, found.high] == pytest.approx(np.quantile(loop, [0.025, 0.975]).tolist(), abs=0.015)


def test_drawing_frames_instead_of_patients_would_look_surer_than_it_is():
    """Negative control: with frames of one patient alike, each frame as its own patient gives a narrower interval."""
    clustered = made(0.6, patients=40, frames=10, clustered=1.0)
    frames = replace(clustered, patients=tuple(range(400)))
    wide = PatientBootstrap({"a": [clustered]}).site("a", "north")
    narrow = PatientBootstrap({"a": [frames]}).site("a", "north")
    assert wide.value == narrow.value
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def _trial(rng, patients: int) -> list[Predictions]:
    """Return two arms, right with 0.6 and 0.7 on new patients whose 5 frames are mostly right or wrong together."""
    owner_B = np.repeat(np.arange(patients), 5)
    labels_B = rng.integers(0, 3, len(owner_B))
    records = []
    for arm, skill in (("worse", 0.6), ("better", 0.7)):
        together_B = rng.random(len(owner_B)) < 0.7
        draw_B = np.where(together_B, rng.random(patients)[owner_B], rng.random(len(owner_B)))
        called_B = np.where(draw_B < skill, labels_B, (labels_B + rng.integers(1, 3, len(owner_B))) % 3)
        sure_BK = np.eye(3, dtype=np.float32)[called_B]
        records.append(
            Predictions(arm, 0, "", "a", tuple(owner_B.tolist()), tuple(labels_B.tolist()), sure_BK)
        )
    return records


@pytest.mark.parametrize(("patients", "least"), [(10, 0.87), (80, 0.92)])
def test_intervals_hold_the_true_difference_about_as_often_as_they_say(patients, least):
    """Over simulated studies: patients nearly 95 times in 100, few patients less often, frames far less often."""
    rng = np.random.default_rng(5)
    large = [record.confusion.macro_f1 for record in _trial(np.random.default_rng(1), 20000)]
    truth = large[1] - large[0]
    studies, held, held_by_frames = 300, 0, 0
    for _ in range(studies):
        records = _trial(rng, patients)
        frames = [replace(record, patients=tuple(range(record.num_images))) for record in records]
        found, naive = (
            PatientBootstrap(arm_groups(part), resamples=300).paired_difference("better", "worse").estimate
            for part in (records, frames)
        )
        held += found.low <= truth <= found.high
        held_by_frames += naive.low <= truth <= naive.high
    assert least < held / studies < 0.98
    assert held_by_frames / studies < 0.8


def test_pairing_makes_a_small_steady_gain_visible():
    """Two arms that differ on a few images only: the difference is surer than the scores themselves."""
    first = made(0.6, patients=60, clustered=1.0)
    probabilities = first.probabilities_BK.copy()
    wrong = np.flatnonzero(first.predicted_B != np.asarray(first.labels))[::6]
    probabilities[wrong] = 0.0
    probabilities[wrong, np.asarray(first.labels)[wrong]] = 1.0
    better = replace(first, arm="better", probabilities_BK=probabilities)
    found = PatientBootstrap(arm_groups([first, better]))
    difference = found.paired_difference("better", "fedavg")
    assert difference.sign == 1
    assert difference.share_above_zero > 0.99
    low, high = found.site("better", "north").low, found.site("fedavg", "north").high
    assert low < high  # unpaired, the intervals overlap
    same = found.paired_difference("better", "better")
    assert (same.estimate.low, same.estimate.high, same.sign, same.share_above_zero) == (0, 0, 0, 0)


def test_the_better_arm_and_the_worst_site_are_found():
    found = PatientBootstrap(arm_groups(compared()))
    assert found.paired_difference("silo", "local").sign == 1
    assert found.paired_difference("local", "silo").sign == -1
    assert {found.worst(arm).site for arm in found.names} == {"west"}
    share = found.gap_closed("fedavg", "local", "pooled").share
    assert 0 < share.low < share.value < share.high < 1
    at_west = found.paired_difference("silo", "local", "west").estimate
    assert at_west.value == pytest.approx(
        found.site("silo", "west").value - found.site("local", "west").value
    )
    assert found.mean("silo").spread[0] < found.mean("silo").value < found.mean("silo").spread[1]


def test_no_share_of_a_gap_that_may_not_be_there():
    level = {"local": 0.7, "pooled": 0.71, "fedavg": 0.75}
    found = PatientBootstrap(arm_groups(compared(level, patients=20)))
    assert found.paired_difference("pooled", "local").estimate.value > 0
    gap = found.gap_closed("fedavg", "local", "pooled")
    assert (gap.share, gap.reason) == (None, "the gap from local to pooled can be chance")
    upside_down = {"local": 0.9, "pooled": 0.6, "fedavg": 0.7}
    gap = PatientBootstrap(arm_groups(compared(upside_down))).gap_closed("fedavg", "local", "pooled")
    assert (gap.share, gap.reason) == (None, "pooled is not above local")


def test_draws_are_fixed_and_do_not_depend_on_other_arms_or_sites():
    whole = PatientBootstrap(arm_groups(compared()))
    part = PatientBootstrap(arm_groups(compared({"silo": 0.85}, sites=("south",))))
    assert whole.site("silo", "south") == part.site("silo", "south")
    assert whole.mean("silo") == PatientBootstrap(arm_groups(compared())).mean("silo")
    assert whole.mean("silo") != PatientBootstrap(arm_groups(compared()), seed=1).mean("silo")


def test_a_site_that_one_arm_lacks_enters_no_mean():
    records = [r for r in compared() if (r.arm, r.test_site, r.seed) != ("silo", "west", 1)]
    found = PatientBootstrap(arm_groups(records))
    assert found.sites == ("north", "south")
    assert found.all_sites == SITES
    assert found.mean("local").value == pytest.approx(
        (found.site("local", "north").value + found.site("local", "south").value) / 2
    )
    assert found.site("silo", "west").spread is None
    nowhere = PatientBootstrap({"a": [made(0.5)], "b": [made(0.5, site="south")]})
    assert (nowhere.sites, nowhere.mean("a"), nowhere.worst("a")) == ((), None, None)
    assert nowhere.paired_difference("a", "b") is None
    assert nowhere.site("a", "south") is None
    assert nowhere.gap_closed("a", "a", "b").share is None


def _with_south(patients: int, frames: int) -> list[Predictions]:
    """Return two arms and their yardsticks at two large sites and one of so many patients."""
    skill = {"local": 0.55, "pooled": 0.95, "fedavg": 0.8}
    return [
        record
        for site, size in (("north", {}), ("west", {}), ("south", {"patients": patients, "frames": frames}))
        for record in compared(skill, sites=(site,), **size)
    ]


def test_a_thin_site_is_shown_and_enters_nothing_else() -> None:
    """Three patients with fifty images each: as many images as the large sites, and still too little."""
    found = PatientBootstrap(arm_groups(_with_south(3, 50)))
    without = PatientBootstrap(arm_groups([r for r in _with_south(3, 50) if r.test_site != "south"]))
    assert (found.thin_sites, found.sites) == (("south",), ("north", "west"))
    shown = found.site("fedavg", "south")
    assert (shown.low, shown.high) == (None, None)
    assert shown.value == pytest.approx(
        np.mean(
            [r.confusion.macro_f1 for r in _with_south(3, 50) if (r.arm, r.test_site) == ("fedavg", "south")]
        )
    )
    assert found.paired_difference("fedavg", "local", "south") is None
    assert found.mean("fedavg") == without.mean("fedavg")
    assert found.worst("fedavg") == without.worst("fedavg")
    assert found.paired_difference("fedavg", "local") == without.paired_difference("fedavg", "local")
    assert found.gap_closed("fedavg", "local", "pooled") == without.gap_closed("fedavg", "local", "pooled")
    # control: with enough patients the same site counts
    counts = PatientBootstrap(arm_groups(_with_south(30, 5)))
    assert counts.sites == ("north", "west", "south")
    assert counts.paired_difference("fedavg", "local", "south").estimate.low is not None


def test_patients_not_images_decide_about_the_worst_centre() -> None:
    records = [made(0.9, site="north"), made(0.1, site="south", patients=9, frames=20)]
    found = PatientBootstrap({"a": records})
    assert found.sites == ("north", "south")
    assert found.worst("a").site == "north"
    # patients not known: every image was recorded as one of its own
    alone = replace(records[1], patients=tuple(range(180)))
    assert PatientBootstrap({"a": [records[0], alone]}).worst("a").site == "south"


def test_of_thin_sites_alone_nothing_is_said() -> None:
    alone = PatientBootstrap({"a": [made(0.1, site="south", patients=4)]})
    assert alone.site("a", "south") is not None
    assert (alone.sites, alone.mean("a"), alone.worst("a")) == ((), None, None)
    assert alone.paired_difference("a", "a") is None


@pytest.mark.parametrize(("patients", "thin"), [(4, True), (5, False)])
def test_the_border_of_thin(patients: int, thin: bool) -> None:
    records = [made(0.5), made(0.5, site="south", patients=patients)]
    assert thin_sites(records) == (("south",) if thin else ())
    assert (note_on_thin(thin_sites(records)) == "") != thin
    assert (PatientBootstrap({"a": records}).site("a", "south").low is None) == thin


def test_arms_with_other_seeds_have_a_difference_without_a_spread():
    records = [*compared({"silo": 0.85}, seeds=(0, 1)), *compared({"local": 0.55}, seeds=(0,))]
    difference = PatientBootstrap(arm_groups(records)).paired_difference("silo", "local")
    assert difference.sign == 1
    assert difference.estimate.by_seed == ()


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([made(0.5), made(0.6)], "two sets"),
        ([made(0.5), made(0.6, seed=1, patients=20)], "different test images"),
    ],
)
def test_what_cannot_be_paired_is_refused(records, words):
    with pytest.raises(SemcError, match=words) as caught:
        PatientBootstrap({"a": records})
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID


def test_groups_by_arm_and_by_condition():
    records = [*compared(), *crossed(), *left_out()]
    assert list(arm_groups(records)) == ["local", "fedavg", "silo", "pooled"]
    assert list(condition_groups(records)) == ["none", "bn_16", "bn_64", "local", "pooled"]
    both = condition_groups([*left_out("fedavg"), *left_out("silo")])
    assert "none (silo)" in both
    assert unadapted("bn_64 (silo)", list(both)) == "none (silo)"
    assert unadapted("none (silo)", list(both)) is None
    assert unadapted("bn_64", ["none", "bn_64"]) == "none"
