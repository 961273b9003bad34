"""The laboratory's answers, tables and page: what the figures say, and no more."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from semc.exit_codes import ExitCode, SemcError
from semc.reporting.bootstrap import PatientBootstrap
from semc.reporting.calibration import mean_ece
from semc.reporting.cross_site import cross_site_matrices
from semc.reporting.groups import arm_groups, condition_groups
from semc.reporting.laboratory import (
    LaboratoryContents,
    SiteCounts,
    build_laboratory_report,
    laboratory_markdown,
    render_laboratory_report,
)
from semc.reporting.laboratory_arms import arms_table
from semc.reporting.laboratory_calibration import calibration_table
from semc.reporting.laboratory_centres import MAJORITY, differences_table
from semc.reporting.laboratory_findings import PHANTOM, find
from semc.reporting.laboratory_left_out import left_out_table
from semc.reporting.laboratory_planes import plane_sites_table, untrained_table
from semc.reporting.laboratory_plots import interval_plot
from semc.reporting.laboratory_verdict import judge_apart, judge_arms
from semc.reporting.left_out_verdict import judge_left_out
from semc.reporting.predictions import Predictions
from semc.reporting.remarks import Remarks
from semc.reporting.site_counts import data_table
from semc.reporting.text_table import ABSENT, DOWN, UP, TextTable
from semc.reporting.thin_sites import note_on_thin
from semc.reporting.yardsticks import Yardsticks
from tests.semc.reporting.made_predictions import CLASSES, SITES, SKILL, compared, crossed, left_out, made
from tests.semc.reporting.study_result import sample_image

PLAIN = {"fedavg": Yardsticks(), "silo": Yardsticks()}


def _contents(**changes) -> LaboratoryContents:
    contents = LaboratoryContents(
        title="Three centres <together> & apart",
        question="Does it hold across centres?",
        predictions=[*compared(), *crossed(), *left_out()],
        classes=CLASSES,
        site_counts={
            site: SiteCounts(
                400, 120, 90, 30, {"head": 201, "abdomen": 150, "femur": 0 if site == "west" else 170}
            )
            for site in SITES
        },
        centre_kind="device",
        centre_rule="machine and operator",
        curves={arm: {site: [(1, 0.3), (2, 0.5)] for site in SITES} for arm in ("fedavg", "silo")},
        training={"local": {"moe": 0.9}, "silo": {"moe": 0.7, "alpha": 0.625}},
        settings={"training": {"learning_rate": 0.01, "gradient_clip": None}},
        digest="d" * 64,
        notes=("Two centres were too small.",),
        yardsticks=PLAIN,
    )
    return replace(contents, **changes)


def _words(contents: LaboratoryContents) -> str:
    """Return the page without plotly's own code."""
    return render_laboratory_report(contents).replace(get_plotlyjs(), "")


def _cell(table: TextTable, row: str, column: str) -> str:
    return next(cells for cells in table.rows if cells[0] == row)[table.columns.index(column)]


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
    arms = PatientBootstrap(arm_groups([*_all_at("north"), *_all_at("south", patients=9, frames=20)]))
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


def _all_at(site: str, **changes: int) -> list[Predictions]:
    return compared(sites=(site,), **changes)


def test_every_mean_leaves_thin_centres_out_and_every_table_says_so() -> None:
    records = [*_all_at("north"), *_all_at("west"), *_all_at("south", patients=4, frames=40)]
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
    contents = _contents(predictions=[*records, *conditions, *crossed_here], site_counts={})
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
        assert float(_cell(found.arms.calibration, name, "mean")) == pytest.approx(np.mean(errors), abs=1e-3)
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
    whole = find(_contents())
    assert whole.arms is not None
    assert not any("Fewer than 5" in table.caption for table in whole.tables())


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


def test_tables_hold_the_figures_of_the_bootstrap():
    arms = PatientBootstrap(arm_groups(compared()))
    table = arms_table(arms, ("local", "fedavg"), PLAIN)
    mean = arms.mean("silo")
    assert _cell(table, "silo", "mean macro-F1") == f"{mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f})"
    assert (
        _cell(table, "silo", "lowest to highest seed")
        == f"{min(mean.by_seed):.3f} to {max(mean.by_seed):.3f}"
    )
    assert _cell(table, "silo", "worst centre").startswith(f"west {arms.worst('silo').estimate.value:.3f} (")
    assert _cell(table, "silo", "against local").endswith("↑")
    assert _cell(table, "local", "against fedavg").endswith("↓")
    assert _cell(table, "local", "against local") == ABSENT
    assert " % (" in _cell(table, "fedavg", "gap from local to pooled closed")
    assert _cell(table, "pooled", "gap from local to pooled closed") == ABSENT
    conditions = PatientBootstrap(condition_groups(left_out()))
    table = left_out_table(conditions)
    assert _cell(table, "none", "against none") == ABSENT
    assert _cell(table, "bn_64", "against none").endswith("↑")
    assert _cell(table, "bn_64", "draws above") == "100 %"


def test_a_gap_that_may_not_be_there_is_a_dash_with_its_reason():
    upside_down = PatientBootstrap(arm_groups(compared({"local": 0.9, "pooled": 0.6, "fedavg": 0.7})))
    table = arms_table(upside_down, ("local",), PLAIN)
    assert _cell(table, "fedavg", "gap from local to pooled closed") == ABSENT
    assert "Gap closed: none, pooled is not above local." in table.caption


OTHER_LOSS = Yardsticks("local+ce", "pooled+ce")


def test_an_arm_with_another_loss_is_not_measured_by_plain_yardsticks() -> None:
    skill = {"local": 0.5, "pooled": 0.95, "fedavg": 0.8, "silo+ce": 0.85}
    yardsticks = {"fedavg": Yardsticks(), "silo+ce": OTHER_LOSS}
    arms = PatientBootstrap(arm_groups(compared(skill)))
    table = arms_table(arms, ("local",), yardsticks)
    assert " % (" in _cell(table, "fedavg", "gap from local to pooled closed")
    assert _cell(table, "silo+ce", "gap from local to pooled closed") == ABSENT
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
    assert _cell(table, "silo+ce", "gap closed").startswith(f"{100 * own.value:.0f} % (")
    assert round(100 * own.value) != round(100 * foreign.value)
    assert _cell(table, "local+ce", "gap closed") == _cell(table, "pooled+ce", "gap closed") == ABSENT
    assert "Gap closed by fedavg: of the way from local to pooled." in table.caption
    assert "Gap closed by silo+ce: of the way from local+ce to pooled+ce." in table.caption
    half = [record for record in compared(skill) if record.arm != "pooled+ce"]
    caption = arms_table(PatientBootstrap(arm_groups(half)), ("local+ce",), yardsticks).caption
    assert "– for silo+ce, as pooled+ce, with the same loss and network, was not run." in caption
    verdict = judge_arms(PatientBootstrap(arm_groups(half)), "silo+ce", OTHER_LOSS)
    assert "each alone (local+ce)" in verdict.sentence
    assert "is not known: pooled+ce was not run." in verdict.sentence


def test_every_arm_minus_one_centre_by_centre() -> None:
    records = [*_all_at("north"), *_all_at("west"), *_all_at("south", patients=4, frames=40)]
    arms = PatientBootstrap(arm_groups(records))
    table = differences_table(arms, "silo")
    assert [row[0] for row in table.rows] == ["local", "fedavg", "pooled"]
    north, south = (
        next(name for name in table.columns if name.startswith(site)) for site in ("north", "south")
    )
    found = arms.paired_difference("local", "silo", "north")
    assert found is not None
    estimate = found.estimate
    assert _cell(table, "local", north) == (
        f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f}) {DOWN}"
    )
    silo, local = arms.site("silo", "north"), arms.site("local", "north")
    assert silo is not None
    assert local is not None
    assert estimate.value == pytest.approx(local.value - silo.value)
    assert _cell(table, "local", south) == ABSENT
    assert table.columns[-1] == "mean over 2"
    assert _cell(table, "local", "mean over 2").endswith(DOWN)
    assert note_on_thin(("south",)) in table.caption


def test_differences_are_to_the_arm_asked_for_else_to_training_alone() -> None:
    def titles(**changes: object) -> list[str]:
        part = find(_contents(**changes)).arms
        assert part is not None
        return [table.title for table in part.scores if table.title.startswith("Every arm minus")]

    assert titles() == ["Every arm minus local, centre by centre"]
    assert titles(against_arm="silo") == ["Every arm minus silo, centre by centre"]
    without = compared({"fedavg": 0.7, "silo": 0.8})
    assert titles(predictions=without) == []
    part = find(_contents(predictions=without, against_arm="silo")).arms
    assert part is not None
    assert part.scores[0].columns[5:] == ("against fedavg", "against silo")
    assert _cell(part.scores[0], "fedavg", "against silo").endswith(DOWN)


def test_captions_explain_only_signs_their_cells_can_have() -> None:
    for table in find(_contents()).tables():
        has_arrow = any(cell.endswith((UP, DOWN)) for row in table.rows for cell in row)
        assert has_arrow <= (UP in table.caption), table.title
        if table.title.startswith("Every arm at every centre"):
            assert UP not in table.caption, table.title


def test_remarks_stand_where_they_belong() -> None:
    remarks = Remarks(arms=("Two arms are one.",), left_out=("None is simulated.",), curves="Other members.")
    found = find(_contents(remarks=remarks))
    assert found.arms is not None
    assert found.left_out is not None
    assert all(
        table.caption.endswith("Two arms are one.") for table in (*found.arms.scores, found.arms.calibration)
    )
    assert [t.title for t in found.tables() if "simulated" in t.caption] == ["A centre that took no part"]
    assert _words(_contents(remarks=remarks)).count("Other members.") == 1


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
    only_local = find(_contents(predictions=compared({"local": 0.5}))).arms
    assert only_local is not None
    assert "Training alone was not run" not in only_local.verdict.sentence
    thin = PatientBootstrap(arm_groups(compared({"pooled": 0.9}, patients=3)))
    assert "cannot be compared" in judge_apart(thin, "pooled").sentence


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
    assert _cell(table, "a", "south") == ABSENT
    assert _cell(table, "a", "mean") == _cell(table, "a", "north")


def test_models_lose_away_from_home_what_they_were_made_to_lose():
    records = [*compared(), *crossed(), *crossed("silo", skill=SKILL["silo"])]
    apart = find(_contents(predictions=records))
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
    assert "What a model loses away from home" in _words(_contents())
    assert find(_contents(predictions=compared())).away is None


def test_cross_site_takes_its_diagonal_from_home():
    (matrix,) = cross_site_matrices([*compared(), *crossed()])
    assert (matrix.arm, matrix.model_sites, matrix.test_sites) == ("local", SITES, SITES)
    home = [r for r in compared() if r.arm == "local" and r.test_site == "south"]
    assert matrix.macro_f1[1][1] == pytest.approx(sum(r.confusion.macro_f1 for r in home) / 2)
    away = [r for r in crossed() if (r.model_site, r.test_site) == ("north", "west")]
    assert matrix.macro_f1[0][2] == pytest.approx(sum(r.confusion.macro_f1 for r in away) / 2)
    (bare,) = cross_site_matrices(crossed())
    assert bare.macro_f1[0][0] is None


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path):
    page = build_laboratory_report(_contents(), tmp_path / "deep" / "laboratory.html").read_text(
        encoding="utf-8"
    )
    assert page.count(get_plotlyjs()) == 1
    words = page.replace(get_plotlyjs(), "")
    assert not re.search(r"https?://|<link|<iframe|@import|url\(", words)
    assert "default-src 'none'" in words
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["laboratory.html"]
    identifiers = re.findall(r'<div id="([^"]+)"', words)
    assert len(identifiers) == len(set(identifiers)) > 20


def test_the_page_shows_everything_and_escapes_it():
    words = _words(_contents(sample_images={"north": [sample_image(90)]}))
    for fact in (
        "Does it hold across centres?",
        "Yes, on these images.",
        "Three centres &lt;together&gt; &amp; apart",
        "Rule: machine and operator.",
        "The centres are devices",
        "<td>201",
        "d" * 64,
        "training.learning_rate",
        "Two centres were too small.",
        "2000 draws of patients",
        "Every centre&#39;s model at every centre: local",
        "Calibration error, arm by arm",
        "bn_64",
    ):
        assert fact in words, fact
    assert "<together>" not in words
    assert words.count("<img") == 1
    assert words.count('class="up"') > words.count('class="down"') > 0
    hostile = replace(made(0.5), arm="</script><script>alert(1)</script>")
    assert "<script>alert(1)" not in _words(_contents(predictions=[hostile]))


def test_only_a_phantom_says_that_it_is_one():
    assert PHANTOM in _words(_contents(phantom=True))
    assert PHANTOM not in _words(_contents())
    assert "made by software" in _words(_contents(centre_kind="synthetic"))


def test_the_same_contents_give_the_same_bytes():
    assert render_laboratory_report(_contents()) == render_laboratory_report(_contents())


@pytest.mark.parametrize("predictions", [[], compared(), left_out(), crossed(), [made(0.7)]])
def test_any_part_may_be_missing(predictions):
    empty = {"site_counts": {}, "curves": {}, "training": {}, "settings": {}, "digest": "", "notes": ()}
    contents = _contents(predictions=predictions, **empty)
    words = _words(contents)
    assert ("Not known." in words) == (len(predictions) in (0, 1) or predictions[0].protocol == "cross_site")
    assert "training images" not in words  # not told is not zero
    assert laboratory_markdown(contents).startswith("# Three centres")


def test_markdown_and_page_show_the_same_tables():
    contents = _contents()
    markdown, words = laboratory_markdown(contents), _words(contents)
    tables = find(contents).tables()
    assert len(tables) == 15
    assert all(note in markdown and note in words for note in contents.notes)
    for table in tables:
        assert table.markdown().rstrip() in markdown
        assert table.caption.split(" ")[0] in words
        for cell in (cell for row in table.rows for cell in row):
            assert cell.partition(" (")[0].replace("<", "&lt;") in words


def test_the_commonest_class_is_the_floor_and_balanced_accuracy_stands_beside_macro_f1():
    scores = find(_contents()).arms.scores  # type: ignore[union-attr]
    sites, balanced = scores[2], scores[3]
    assert sites.rows[-1][0] == MAJORITY
    labels = np.array(made(0.5, site="north").labels)
    share = (labels == 0).mean()  # the counts name "head" the commonest
    precision_and_recall = 2 * share / (share + 1)
    assert float(_cell(sites, MAJORITY, sites.columns[1])) == pytest.approx(
        precision_and_recall / 3, abs=5e-4
    )
    assert sites.caption.startswith("Macro-F1, ")
    assert balanced.title.endswith(": balanced accuracy")
    assert balanced.rows[-1][0] != MAJORITY
    without_counts = find(_contents(site_counts={})).arms
    assert without_counts is not None
    assert without_counts.scores[2].rows[-1][0] != MAJORITY


def test_means_of_calibration_and_planes_are_over_centres_that_every_row_has():
    partial = [r for r in compared() if not (r.arm == "silo" and r.test_site == "west")]
    part = find(_contents(predictions=partial)).arms
    assert part is not None
    for name in ("local", "silo"):
        own = [r for r in partial if r.arm == name and r.test_site != "west"]
        errors = [mean_ece([r for r in own if r.test_site == site]) for site in ("north", "south")]
        assert float(_cell(part.calibration, name, "mean")) == pytest.approx(sum(errors) / 2, abs=1e-3)
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
    assert _cell(table, "south", "silo").startswith(f"{np.mean(hits):.2f} (")
    assert (
        untrained_table(
            groups, {site: replace(found, train_class_counts={}) for site, found in counts.items()}, CLASSES
        )
        is None
    )


def test_training_terms_stand_side_by_side_and_absent_ones_are_dashes():
    table = find(_contents()).training
    assert table is not None
    assert table.columns == ("arm", "moe", "alpha")
    assert table.rows == (("local", "0.900", ABSENT), ("silo", "0.700", "0.625"))
    assert find(_contents(training={})).training is None


def test_the_judged_arm_is_the_named_one_else_the_baseline_else_the_first_federated():
    assert _contents().judged_arm() == "fedavg"
    assert _contents(main_arm="silo").judged_arm() == "silo"
    others = compared({"local": 0.5, "silo": 0.8, "fedprox": 0.9})
    assert _contents(predictions=others).judged_arm() == "silo"
    assert _contents(predictions=[]).judged_arm() == ""


def test_predictions_that_cannot_be_paired_and_a_bad_folder_are_told(tmp_path: Path):
    with pytest.raises(SemcError) as caught:
        render_laboratory_report(_contents(predictions=[made(0.5), made(0.5, seed=1, patients=9)]))
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID
    (tmp_path / "file").write_text("")
    with pytest.raises(SemcError) as caught:
        build_laboratory_report(_contents(), tmp_path / "file" / "x.html")
    assert caught.value.code is ExitCode.DISK
