"""The answer of a study: true also where the federation loses, and never ranked by a handful of images."""

import pytest

from semc.metrics import Confusion
from semc.reporting.comparison import (
    MIN_RANKED_IMAGES,
    Comparison,
    SiteComparison,
    compare,
)
from semc.reporting.intervals import wilson_interval
from semc.reporting.verdict import judge
from tests.semc.reporting.study_result import study_result


def _site(name: str, federation: tuple[int, int] | None, alone: tuple[int, int] | None) -> SiteComparison:
    """Two classes, each with (right, wrong) images."""

    def confusion(arm: tuple[int, int] | None) -> Confusion | None:
        return Confusion([[arm[0], arm[1]], [arm[1], arm[0]]]) if arm is not None else None

    return SiteComparison(name, 50, confusion(federation), confusion(alone))


@pytest.mark.parametrize(
    ("sites", "answer"),
    [
        ([((9, 1), (6, 4)), ((8, 2), (7, 3))], "yes"),
        ([((10, 0), (5, 5)), ((6, 4), (7, 3))], "yes"),  # one loses, but the worst rises from 0.5 to 0.6
        ([((10, 0), (7, 3)), ((5, 5), (6, 4))], "partly"),  # better on average, the worst falls
        ([((7, 3), (9, 1)), ((6, 4), (5, 5))], "partly"),  # worse on average, the worst rises
        ([((6, 4), (9, 1)), ((5, 5), (6, 4))], "no"),
        ([((6, 4), (6, 4)), ((7, 3), (7, 3))], "no"),  # no gain is not a gain
        ([((9, 1), None), ((8, 2), None)], "unknown"),
        ([(None, None)], "unknown"),
    ],
)
def test_answers(sites: list[tuple[tuple[int, int] | None, tuple[int, int] | None]], answer: str):
    def judged(copies: int) -> str:
        many = [tuple(arm and (arm[0] * copies, arm[1] * copies) for arm in arms) for arms in sites]
        return judge(Comparison(tuple(_site(f"s{i}", *arms) for i, arms in enumerate(many)))).answer

    gained = any(arms[0] and arms[1] and arms[0] != arms[1] for arms in sites)
    assert judged(1000) == (answer if gained or answer == "unknown" else "unclear")
    assert judged(1) == ("unknown" if answer == "unknown" else "unclear"), "a few images settle nothing"


def test_a_lost_comparison_is_said_in_plain_words():
    verdict = judge(Comparison((_site("north", (6, 4), (9, 1)), _site("south", (7, 3), (6, 4)))))
    assert verdict.sentence == (
        "The federation reaches a mean macro-F1 of 0.650 over 2 hospitals, "
        "0.100 below training alone (0.750). "
        "The weakest hospital has 0.600 (north, n = 20); alone, the weakest has 0.600 (south, n = 20). "
        "Training alone is better at 1 of 2: north."
    )
    assert "overlap" in verdict.caution


def test_means_run_over_the_same_sites_in_both_arms():
    comparison = Comparison((_site("a", (10, 0), None), _site("b", (6, 4), (5, 5)), _site("c", None, (9, 1))))
    assert comparison.mean_macro_f1("federation") == pytest.approx(0.6)
    assert comparison.mean_macro_f1("local_only") == pytest.approx(0.5)
    pooled = comparison.pooled("federation")
    assert pooled is not None
    assert pooled.num_examples == 20


def test_a_tiny_site_is_shown_but_not_ranked():
    half = MIN_RANKED_IMAGES // 2
    tiny, enough = _site("tiny", (0, half - 1), (0, half - 1)), _site("enough", (half, 0), (half - 1, 1))
    comparison = Comparison((tiny, enough))
    worst = comparison.worst("federation")
    assert worst is not None
    assert (worst.site, worst.num_test_images) == ("enough", MIN_RANKED_IMAGES)
    assert "Not ranked" in judge(comparison).caution
    assert Comparison((tiny,)).worst("federation") is None
    assert judge(Comparison((tiny, _site("t2", (2, 0), (1, 1))))).answer == "unclear"


def test_clear_differences_carry_no_warning_of_chance():
    assert "chance" not in judge(compare(study_result((20, 0), (5, 15)))).caution
    assert "chance" in judge(compare(study_result((10, 10), (9, 11)))).caution


def test_wilson_interval_by_its_definition():
    """Its ends are the shares p that lie 1.96 standard errors, computed at p, from the observed share."""
    low, high = wilson_interval(7, 20) or (0.0, 0.0)
    for end in (low, high):
        assert abs(7 / 20 - end) == pytest.approx(1.959964 * (end * (1 - end) / 20) ** 0.5)
    assert low < 7 / 20 < high
    assert wilson_interval(0, 0) is None
    assert wilson_interval(0, 5) == pytest.approx((0.0, 0.4345), abs=1e-3)
    assert (wilson_interval(5, 5) or (0, 0))[1] == 1.0
