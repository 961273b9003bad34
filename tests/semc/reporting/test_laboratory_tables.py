"""The laboratory's tables hold the figures of the bootstrap and explain them."""

import re
from dataclasses import replace

import numpy as np
import pytest

from semc.reporting.bootstrap import PatientBootstrap
from semc.reporting.calibration import mean_ece
from semc.reporting.cross_site import cross_site_matrices
from semc.reporting.groups import arm_groups, condition_groups
from semc.reporting.laboratory_arms import arms_table
from semc.reporting.laboratory_calibration import calibration_table
from semc.reporting.laboratory_centres import MAJORITY, differences_table
from semc.reporting.laboratory_findings import find
from semc.reporting.laboratory_left_out import left_out_table
from semc.reporting.laboratory_planes import plane_sites_table, untrained_table
from semc.reporting.laboratory_plots import interval_plot
from semc.reporting.laboratory_verdict import judge_arms
from semc.reporting.site_counts import SiteCounts, data_table
from semc.reporting.text_table import ABSENT, DOWN, UP
from semc.reporting.thin_sites import note_on_thin
from semc.reporting.yardsticks import Yardsticks
from tests.semc.reporting.made_laboratory import PLAIN, all_at, cell, contents_of, words_of
from tests.semc.reporting.made_predictions import CLASSES, SITES, SKILL, compared, crossed, left_out, made

OTHER_LOSS = Yardsticks("local+ce", "pooled+ce")


def test_every_mean_leaves_thin_centres_out_and_every_table_says_so() -> None:
    records = [*all_at("north"), *all_at("west"), *all_at("south", patients=4, frames=40)]
    conditions = [
        replace(
            record, protocol="loco", condition="none" if record.arm == "fedavg" else "local", arm="fedavg"
        )
        for record in records
        if record.arm in ("fedavg", "local")
    ]
    crossed_here = [
        replace(record, protocol="cross_site", model_site="other")
        for record in records
        if record.arm == "local"
    ]
    contents = contents_of(predictions=[*records, *conditions, *crossed_here], site_counts={})
    found = find(contents)
    assert found.arms is not None
    assert found.left_out is not None
    assert found.away is not None
    note = note_on_thin(("south",))
    told = (*found.arms.scores, *found.left_out.scores, found.arms.calibration, found.away)
    assert all(note in table.caption for table in told)
    of_two = {
        name: [mean_ece([r]) for r in records if r.arm == name and r.test_site != "south"]
        for name in ("local", "silo")
    }
    for name, errors in of_two.items():
        assert float(cell(found.arms.calibration, name, "mean")) == pytest.approx(np.mean(errors), abs=1e-3)
    assert "mean over 2 of 3 centres" in found.arms.scores[0].caption
    assert "2 of 3 centres reach" in found.arms.verdict.sentence
    assert "over 2 of 3 left-out centres." in found.left_out.verdict.sentence
    assert "mean over 2" in found.left_out.scores[0].columns
    plot = interval_plot(found.arms.bootstrap)
    assert plot.layout.xaxis.ticktext == ("north", "west", "south<br>(not in the mean)", "mean")
    mean = found.arms.bootstrap.mean("silo")
    assert mean is not None
    (drawn,) = [trace for trace in plot.data if trace.name == "silo"]
    assert drawn.y[-1] == mean.value
    # control: without a thin centre nothing is said
    whole = find(contents_of())
    assert whole.arms is not None
    assert not any("Fewer than 5" in table.caption for table in whole.tables())


def test_tables_hold_the_figures_of_the_bootstrap():
    arms = PatientBootstrap(arm_groups(compared()))
    table = arms_table(arms, ("local", "fedavg"), PLAIN)
    mean = arms.mean("silo")
    assert cell(table, "silo", "mean macro-F1") == f"{mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f})"
    assert (
        cell(table, "silo", "lowest to highest seed") == f"{min(mean.by_seed):.3f} to {max(mean.by_seed):.3f}"
    )
    assert cell(table, "silo", "worst centre").startswith(f"west {arms.worst('silo').estimate.value:.3f} (")
    assert cell(table, "silo", "against local").endswith("↑")
    assert cell(table, "local", "against fedavg").endswith("↓")
    assert cell(table, "local", "against local") == ABSENT
    assert " % (" in cell(table, "fedavg", "gap from local to pooled closed")
    assert cell(table, "pooled", "gap from local to pooled closed") == ABSENT
    conditions = PatientBootstrap(condition_groups(left_out()))
    table = left_out_table(conditions)
    assert cell(table, "none", "against none") == ABSENT
    assert cell(table, "bn_64", "against none").endswith("↑")
    assert cell(table, "bn_64", "draws above") == "100 %"


def test_a_gap_that_may_not_be_there_is_a_dash_with_its_reason():
    upside_down = PatientBootstrap(arm_groups(compared({"local": 0.9, "pooled": 0.6, "fedavg": 0.7})))
    table = arms_table(upside_down, ("local",), PLAIN)
    assert cell(table, "fedavg", "gap from local to pooled closed") == ABSENT
    assert "Gap closed: none, pooled is not above local." in table.caption


def test_an_arm_with_another_loss_is_not_measured_by_plain_yardsticks() -> None:
    skill = {"local": 0.5, "pooled": 0.95, "fedavg": 0.8, "silo+ce": 0.85}
    yardsticks = {"fedavg": Yardsticks(), "silo+ce": OTHER_LOSS}
    arms = PatientBootstrap(arm_groups(compared(skill)))
    table = arms_table(arms, ("local",), yardsticks)
    assert " % (" in cell(table, "fedavg", "gap from local to pooled closed")
    assert cell(table, "silo+ce", "gap from local to pooled closed") == ABSENT
    assert (
        "Gap closed: – for silo+ce, as local+ce and pooled+ce, with the same loss and network, were not run."
        in table.caption
    )
    assert "Against local the loss or network differs too: silo+ce." in table.caption
    no_pooled = PatientBootstrap(arm_groups([r for r in compared(skill) if r.arm != "pooled"]))
    caption = arms_table(no_pooled, ("local",), yardsticks).caption
    assert "Against local the loss or network differs too: silo+ce." in caption
    assert "Gap" not in caption
    verdict = judge_arms(arms, "silo+ce", OTHER_LOSS)
    assert verdict.answer == "unknown"
    assert "(local+ce) was not run, so the gain is not known" in verdict.sentence
    assert "gap" not in verdict.sentence
    assert any(
        line.startswith("Against local, which differs in loss or network too: +") for line in verdict.details
    )
    # control: the same figures are a yes where local and pooled are the arm's own
    assert judge_arms(arms, "silo+ce", Yardsticks()).answer == "yes"


def test_every_arm_is_measured_by_its_own_yardsticks_where_they_were_run() -> None:
    skill = {"local": 0.4, "pooled": 0.95, "local+ce": 0.6, "pooled+ce": 0.9, "fedavg": 0.8, "silo+ce": 0.8}
    yardsticks = {"fedavg": Yardsticks(), "silo+ce": OTHER_LOSS}
    arms = PatientBootstrap(arm_groups(compared(skill)))
    table = arms_table(arms, ("local",), yardsticks)
    own = arms.gap_closed("silo+ce", "local+ce", "pooled+ce").share
    foreign = arms.gap_closed("silo+ce", "local", "pooled").share
    assert own is not None
    assert foreign is not None
    assert cell(table, "silo+ce", "gap closed").startswith(f"{100 * own.value:.0f} % (")
    assert round(100 * own.value) != round(100 * foreign.value)
    assert cell(table, "local+ce", "gap closed") == cell(table, "pooled+ce", "gap closed") == ABSENT
    assert "Gap closed by fedavg: of the way from local to pooled." in table.caption
    assert "Gap closed by silo+ce: of the way from local+ce to pooled+ce." in table.caption
    half = [record for record in compared(skill) if record.arm != "pooled+ce"]
    caption = arms_table(PatientBootstrap(arm_groups(half)), ("local+ce",), yardsticks).caption
    assert "– for silo+ce, as pooled+ce, with the same loss and network, was not run." in caption
    verdict = judge_arms(PatientBootstrap(arm_groups(half)), "silo+ce", OTHER_LOSS)
    assert "each alone (local+ce)" in verdict.sentence
    assert "is not known: pooled+ce was not run." in verdict.sentence


def test_every_arm_minus_one_centre_by_centre() -> None:
    records = [*all_at("north"), *all_at("west"), *all_at("south", patients=4, frames=40)]
    arms = PatientBootstrap(arm_groups(records))
    table = differences_table(arms, "silo")
    assert [row[0] for row in table.rows] == ["local", "fedavg", "pooled"]
    north, south = (
        next(name for name in table.columns if name.startswith(site)) for site in ("north", "south")
    )
    found = arms.paired_difference("local", "silo", "north")
    assert found is not None
    estimate = found.estimate
    assert cell(table, "local", north) == (
        f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f}) {DOWN}"
    )
    silo, local = arms.site("silo", "north"), arms.site("local", "north")
    assert silo is not None
    assert local is not None
    assert estimate.value == pytest.approx(local.value - silo.value)
    assert cell(table, "local", south) == ABSENT
    assert table.columns[-1] == "mean over 2"
    assert cell(table, "local", "mean over 2").endswith(DOWN)
    assert note_on_thin(("south",)) in table.caption


def test_differences_are_to_the_arm_asked_for_else_to_training_alone() -> None:
    def titles(**changes: object) -> list[str]:
        part = find(contents_of(**changes)).arms
        assert part is not None
        return [table.title for table in part.scores if table.title.startswith("Every arm minus")]

    assert titles() == ["Every arm minus local, centre by centre"]
    assert titles(against_arm="silo") == ["Every arm minus silo, centre by centre"]
    without = compared({"fedavg": 0.7, "silo": 0.8})
    assert titles(predictions=without) == []
    part = find(contents_of(predictions=without, against_arm="silo")).arms
    assert part is not None
    assert part.scores[0].columns[5:] == ("against fedavg", "against silo")
    assert cell(part.scores[0], "fedavg", "against silo").endswith(DOWN)


def test_captions_explain_only_signs_their_cells_can_have() -> None:
    for table in find(contents_of()).tables():
        has_arrow = any(cell.endswith((UP, DOWN)) for row in table.rows for cell in row)
        assert has_arrow <= (UP in table.caption), table.title
        if table.title.startswith("Every arm at every centre"):
            assert UP not in table.caption, table.title


def test_columns_of_arms_that_were_not_run_are_left_out() -> None:
    arms = PatientBootstrap(arm_groups(compared({"pooled": 0.9, "pooled+ce": 0.8})))
    table = arms_table(arms, ("local", "fedavg", "pooled"), {})
    assert table.columns[5:] == ("against pooled",)
    assert "Gap" not in table.caption


def test_a_centre_without_test_images_is_told():
    caption = data_table(
        {"north": SiteCounts(9, 3, None, None, {}), "south": SiteCounts(9, 0, 2, 0, {})}, CLASSES
    )
    assert caption.caption.endswith("Without a test image, so in no score: south.")
    assert caption.rows[0] == ("north", "9", ABSENT, "3", ABSENT, "0", "0", "0")


def test_planes_of_few_patients_are_shown_but_not_ranked() -> None:
    """Nine patients with forty images each: hundreds of images of a plane, and still no rank."""
    records = [made(0.8, site="north"), made(0.8, site="south", patients=9, frames=40)]
    row = plane_sites_table("fedavg", records, CLASSES).rows[0]
    heads = {p for p, label in zip(records[0].patients, records[0].labels, strict=True) if label == 0}
    assert re.search(rf"n = \d+ of {len(heads)} patients, rank 1$", row[1])
    assert re.search(r"n = \d{3} of 9 patients, not ranked$", row[2])


def test_a_group_without_a_centre_has_a_dash_in_its_calibration():
    table = calibration_table({"a": [made(0.8)], "b": [made(0.8), made(0.7, site="south")]}, "arm")
    assert cell(table, "a", "south") == ABSENT
    assert cell(table, "a", "mean") == cell(table, "a", "north")


def test_models_lose_away_from_home_what_they_were_made_to_lose():
    records = [*compared(), *crossed(), *crossed("silo", skill=SKILL["silo"])]
    apart = find(contents_of(predictions=records))
    assert apart.away is not None
    assert [row[0] for row in apart.away.rows] == ["local", "silo"]
    own, away, difference = (float(cell.split()[0]) for cell in apart.away.rows[0][1:])
    scores = {
        protocol: [r.confusion.macro_f1 for r in records if r.arm == "local" and r.protocol == protocol]
        for protocol in ("per_site", "cross_site")
    }
    assert own == pytest.approx(sum(scores["per_site"]) / 6, abs=5e-4)
    assert away == pytest.approx(sum(scores["cross_site"]) / 12, abs=5e-4)
    assert difference == pytest.approx(away - own, abs=1.5e-3)
    assert apart.away.rows[0][3].endswith(DOWN)
    assert "What a model loses away from home" in words_of(contents_of())
    assert find(contents_of(predictions=compared())).away is None


def test_cross_site_takes_its_diagonal_from_home():
    (matrix,) = cross_site_matrices([*compared(), *crossed()])
    assert (matrix.arm, matrix.model_sites, matrix.test_sites) == ("local", SITES, SITES)
    home = [r for r in compared() if r.arm == "local" and r.test_site == "south"]
    assert matrix.macro_f1[1][1] == pytest.approx(sum(r.confusion.macro_f1 for r in home) / 2)
    away = [r for r in crossed() if (r.model_site, r.test_site) == ("north", "west")]
    assert matrix.macro_f1[0][2] == pytest.approx(sum(r.confusion.macro_f1 for r in away) / 2)
    (bare,) = cross_site_matrices(crossed())
    assert bare.macro_f1[0][0] is None


def test_the_commonest_class_is_the_floor_and_balanced_accuracy_stands_beside_macro_f1():
    scores = find(contents_of()).arms.scores  # type: ignore[union-attr]
    sites, balanced = scores[2], scores[3]
    assert sites.rows[-1][0] == MAJORITY
    labels = np.array(made(0.5, site="north").labels)
    share = (labels == 0).mean()  # the counts name "head" the commonest
    precision_and_recall = 2 * share / (share + 1)
    assert float(cell(sites, MAJORITY, sites.columns[1])) == pytest.approx(precision_and_recall / 3, abs=5e-4)
    assert sites.caption.startswith("Macro-F1, ")
    assert balanced.title.endswith(": balanced accuracy")
    assert balanced.rows[-1][0] != MAJORITY
    without_counts = find(contents_of(site_counts={})).arms
    assert without_counts is not None
    assert without_counts.scores[2].rows[-1][0] != MAJORITY


def test_means_of_calibration_and_planes_are_over_centres_that_every_row_has():
    partial = [r for r in compared() if not (r.arm == "silo" and r.test_site == "west")]
    part = find(contents_of(predictions=partial)).arms
    assert part is not None
    for name in ("local", "silo"):
        own = [r for r in partial if r.arm == name and r.test_site != "west"]
        errors = [mean_ece([r for r in own if r.test_site == site]) for site in ("north", "south")]
        assert float(cell(part.calibration, name, "mean")) == pytest.approx(sum(errors) / 2, abs=1e-3)
    images = sum(int((np.array(made(0.5, site=site).labels) == 0).sum()) for site in ("north", "south"))
    assert part.planes[0].rows[0][:2] == ("head", str(images))


def test_a_class_a_centre_never_trained_on_has_its_own_row():
    counts = {
        site: SiteCounts(
            9, 9, None, None, {}, {"head": 3, "abdomen": 3, "femur": 0 if site == "south" else 3}
        )
        for site in SITES
    }
    groups = arm_groups(compared())
    table = untrained_table(groups, counts, CLASSES)
    assert table is not None
    (row,) = table.rows
    of_femur = np.array(made(0.5, site="south").labels) == 2
    assert row[:3] == ("south", "femur", str(of_femur.sum()))
    hits = [r.predicted_B[of_femur] == 2 for r in groups["silo"] if r.test_site == "south"]
    assert cell(table, "south", "silo").startswith(f"{np.mean(hits):.2f} (")
    assert (
        untrained_table(
            groups, {site: replace(found, train_class_counts={}) for site, found in counts.items()}, CLASSES
        )
        is None
    )


def test_training_terms_stand_side_by_side_and_absent_ones_are_dashes():
    table = find(contents_of()).training
    assert table is not None
    assert table.columns == ("arm", "moe", "alpha")
    assert table.rows == (("local", "0.900", ABSENT), ("silo", "0.700", "0.625"))
    assert find(contents_of(training={})).training is None
