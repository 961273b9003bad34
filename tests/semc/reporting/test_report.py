"""The page: whole, offline, honest, and free of what it must not carry."""

import base64
import re
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from semc.exit_codes import ExitCode, SemcError
from semc.reporting import RoundResult, StudyResult
from semc.reporting.report import build_report, render_report
from semc.reporting.sample_images import thumbnail
from tests.semc.reporting.study_result import SITES, sample_image, study_result


def _words(result: StudyResult) -> str:
    """Return the page without plotly's own code."""
    return render_report(result).replace(get_plotlyjs(), "")


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path):
    page = build_report(study_result(), tmp_path / "deep" / "report.html").read_text(encoding="utf-8")
    assert page.count(get_plotlyjs()) == 1
    words = page.replace(get_plotlyjs(), "")
    assert not re.search(r"https?://|<link|<iframe|@import|url\(", words)
    assert "default-src 'none'" in words
    assert len(words) < 200_000
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.html"]


def test_the_same_result_gives_the_same_bytes():
    assert render_report(study_result()) == render_report(study_result())


def test_it_answers_the_question():
    words = _words(study_result())
    assert "Yes, in this study." in words
    assert "0.300 above training alone" in words
    assert "No formal guarantee" in words
    assert "Privacy mode none: no formal guarantee." in words
    for fact in (
        "d" * 64,
        "e" * 64,
        "batch-norm running statistics",
        "torch 2.9",
        "training.learning_rate",
        "3 of 3",
    ):
        assert fact in words, fact
    assert all(words.count(site) > 5 for site in SITES)


def test_it_says_so_where_the_federation_is_worse():
    words = _words(study_result(federation=(10, 10), alone=(15, 5)))
    assert "No, not in this study." in words
    assert "Yes, in this study." not in words
    assert "Training alone is better at 3 of 3" in words


def test_text_of_the_study_is_escaped():
    words = _words(study_result())
    assert "Three hospitals &lt;together&gt; &amp; apart." in words
    assert "<together>" not in words
    hostile = study_result().model_copy(update={"classes": ["</script><script>alert(1)</script>", "b", "c"]})
    assert "<script>alert(1)" not in _words(hostile)


def test_a_study_that_stopped_early_still_has_a_page():
    stopped = study_result(alone=None, rounds=0)
    sites = [site.model_copy(update={"test_confusion": None}) for site in stopped.sites]
    stopped = stopped.model_copy(
        update={"outcome": "quorum_lost", "sites": sites, "final_weights_sha256": "", "settings": {}}
    )
    words = _words(stopped)
    assert "Not known." in words
    assert "Stopped: a round had fewer hospitals" in words
    assert "plotly-graph-div" not in words


def test_receipts_are_counted_and_exceptions_named():
    result = study_result(rounds=2)
    late = RoundResult(
        round=3,
        seconds=9.0,
        receipts={"north": "in", "south": "late", "west": "declined"},
        reasons={"west": "E_DATA"},
        train_loss={"north": 1.0},
    )
    later = late.model_copy(update={"round": 4})
    result = result.model_copy(
        update={"rounds": [*result.rounds, late, later], "outcome": "complete_on_subset"}
    )
    words = _words(result)
    assert "4 of 4" in words
    assert words.count("2 of 4") == 2
    assert "late in rounds 3, 4" in words
    assert "declined (E_DATA) in rounds 3, 4" in words
    assert "Complete on a subset" in words


def test_sample_images_are_shown_small_without_what_their_files_carried():
    secret = "patient-0815"
    original = sample_image(90, secret)
    assert secret.encode() in base64.b64decode(original)
    shown = thumbnail(original)
    content = base64.b64decode(shown.removeprefix("data:image/png;base64,"))
    assert secret.encode() not in content
    assert max(int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")) == 256
    words = _words(study_result().with_sample_images({"south": [original]}))
    assert shown in words
    assert words.count("<img") == 1


def test_a_page_without_samples_has_no_such_part():
    assert "What the images look like" not in _words(study_result())


@pytest.mark.parametrize("encoded", ["not base64!", base64.b64encode(b"no image").decode()])
def test_a_sample_that_is_no_image_is_told(encoded: str):
    with pytest.raises(SemcError) as caught:
        thumbnail(encoded)
    assert caught.value.code is ExitCode.DATA_UNREADABLE


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SemcError) as caught:
        build_report(study_result(), tmp_path / "file" / "report.html")
    assert caught.value.code is ExitCode.DISK
