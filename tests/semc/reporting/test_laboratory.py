"""The laboratory's page and Markdown: whole, escaped, the same figures."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from semc.exit_codes import ExitCode, SemcError
from semc.reporting.laboratory import (
    build_laboratory_report,
    laboratory_markdown,
    render_laboratory_report,
)
from semc.reporting.laboratory_findings import PHANTOM, find
from semc.reporting.remarks import Remarks
from tests.semc.reporting.made_laboratory import contents_of, words_of
from tests.semc.reporting.made_predictions import compared, crossed, left_out, made
from tests.semc.reporting.study_result import sample_image


def test_remarks_stand_where_they_belong() -> None:
    remarks = Remarks(arms=("Two arms are one.",), left_out=("None is simulated.",), curves="Other members.")
    found = find(contents_of(remarks=remarks))
    assert found.arms is not None
    assert found.left_out is not None
    assert all(
        table.caption.endswith("Two arms are one.") for table in (*found.arms.scores, found.arms.calibration)
    )
    assert [t.title for t in found.tables() if "simulated" in t.caption] == ["A centre that took no part"]
    assert words_of(contents_of(remarks=remarks)).count("Other members.") == 1


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path):
    page = build_laboratory_report(contents_of(), tmp_path / "deep" / "laboratory.html").read_text(
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
    words = words_of(contents_of(sample_images={"north": [sample_image(90)]}))
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
    assert "<script>alert(1)" not in words_of(contents_of(predictions=[hostile]))


def test_only_a_phantom_says_that_it_is_one():
    assert PHANTOM in words_of(contents_of(phantom=True))
    assert PHANTOM not in words_of(contents_of())
    assert "made by software" in words_of(contents_of(centre_kind="synthetic"))


def test_page_and_markdown_say_that_there_is_no_guarantee():
    assert "No formal guarantee" in words_of(contents_of())
    assert "No formal guarantee" in laboratory_markdown(contents_of())


def test_the_same_contents_give_the_same_bytes():
    assert render_laboratory_report(contents_of()) == render_laboratory_report(contents_of())


@pytest.mark.parametrize("predictions", [[], compared(), left_out(), crossed(), [made(0.7)]])
def test_any_part_may_be_missing(predictions):
    empty = {"site_counts": {}, "curves": {}, "training": {}, "settings": {}, "digest": "", "notes": ()}
    contents = contents_of(predictions=predictions, **empty)
    words = words_of(contents)
    assert ("Not known." in words) == (len(predictions) in (0, 1) or predictions[0].protocol == "cross_site")
    assert "training images" not in words  # not told is not zero
    assert laboratory_markdown(contents).startswith("# Three centres")


def test_markdown_and_page_show_the_same_tables():
    contents = contents_of()
    markdown, words = laboratory_markdown(contents), words_of(contents)
    tables = find(contents).tables()
    assert len(tables) == 15
    assert all(note in markdown and note in words for note in contents.notes)
    for table in tables:
        assert table.markdown().rstrip() in markdown
        assert table.caption.split(" ")[0] in words
        for cell in (cell for row in table.rows for cell in row):
            assert cell.partition(" (")[0].replace("<", "&lt;") in words


def test_predictions_that_cannot_be_paired_and_a_bad_folder_are_told(tmp_path: Path):
    with pytest.raises(SemcError) as caught:
        render_laboratory_report(contents_of(predictions=[made(0.5), made(0.5, seed=1, patients=9)]))
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID
    (tmp_path / "file").write_text("")
    with pytest.raises(SemcError) as caught:
        build_laboratory_report(contents_of(), tmp_path / "file" / "x.html")
    assert caught.value.code is ExitCode.DISK
