"""The figures show the numbers of the result, and nothing where there are none."""

import pytest

from semc.metrics import Confusion
from semc.reporting import RoundResult
from semc.reporting.plots import confusion_heatmap, loss_curves, recall_bars, score_curves
from tests.semc.reporting.study_result import CLASSES, SITES, counts, study_result


def test_score_curves_hold_each_rounds_macro_f1_and_the_dotted_arm():
    result = study_result()
    traces = {trace.name: trace for trace in score_curves(result).data}
    assert set(traces) == {*SITES, *(f"{site} alone" for site in SITES)}
    for site in SITES:
        expected = [Confusion.from_list(item.test[site], 3).macro_f1 for item in result.rounds]
        assert list(traces[site].y) == pytest.approx(expected)
        assert list(traces[site].x) == [1, 2, 3]
    assert list(traces["north alone"].y) == pytest.approx([0.6, 0.6])


def test_a_round_without_a_site_has_no_point():
    result = study_result()
    silent = RoundResult(round=4, seconds=1, receipts={}, validation={"north": counts(4, 0)})
    result = result.model_copy(update={"rounds": [*result.rounds, silent]})
    traces = {trace.name: trace for trace in score_curves(result).data}
    assert list(traces["north"].x) == [1, 2, 3, 4]  # no test counts: those on validation images
    assert list(traces["south"].x) == [1, 2, 3]
    assert list(loss_curves(result).data[0].x) == [1, 2, 3]
    assert list(loss_curves(result).data[0].y) == [2.0, 1.0, pytest.approx(2 / 3)]


def test_heat_map_shows_counts_and_shades_by_row():
    heat = confusion_heatmap(Confusion([[3, 1, 0], [0, 0, 0], [0, 2, 2]]), CLASSES).data[0]
    assert [list(row) for row in heat.text] == [[3, 1, 0], [0, 0, 0], [0, 2, 2]]
    assert [list(row) for row in heat.z] == [[0.75, 0.25, 0.0], [None] * 3, [0.0, 0.5, 0.5]]


def test_recall_has_no_bar_for_an_absent_class():
    result = study_result()
    sites = [
        result.sites[0].model_copy(update={"test_confusion": [2, 1, 0, 0, 0, 0, 0, 0, 4]}),
        *result.sites[1:],
    ]
    sites[2] = sites[2].model_copy(update={"test_confusion": None})
    bars = recall_bars(result.model_copy(update={"sites": sites})).data
    assert [bar.name for bar in bars] == ["north", "south"]
    assert list(bars[0].x) == ["head", "femur"]
    assert list(bars[0].y) == [pytest.approx(2 / 3), 1.0]
    assert list(bars[0].text) == ["n=3", "n=4"]


def test_many_rounds_do_not_crowd_the_axis():
    assert score_curves(study_result(rounds=3)).layout.xaxis.dtick == 1
    assert score_curves(study_result(rounds=50)).layout.xaxis.dtick is None
