"""The same study twice in Flower's simulation: the same weights, bit for bit; another seed: others."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from semc.config import StudyConfig, load_study
from semc.exit_codes import ExitCode, SemcError
from semc.reporting.result import StudyResult
from simulation.run import prepare, run_simulation
from simulation.study_run import run_study


def test_a_run_that_lost_its_quorum_is_an_error_and_never_a_result(
    study: StudyConfig, hospitals: Path, tmp_path: Path
) -> None:
    """A hospital's images disappear between the start and the first round."""
    moved = tmp_path / "hospitals"
    shutil.copytree(hospitals, moved)
    run = prepare(study, moved, tmp_path / "run")
    shutil.rmtree(moved / "south" / "images")
    with pytest.raises(SemcError) as caught:
        run_simulation(run)
    assert caught.value.code is ExitCode.QUORUM_LOST
    written = StudyResult.model_validate(json.loads((run.server_folder / "result.json").read_text()))
    assert written.outcome == "quorum_lost"


@pytest.mark.slow
def test_one_seed_gives_bit_identical_weights_and_another_does_not(
    study: StudyConfig, hospitals: Path, tmp_path: Path
) -> None:
    first = run_study(study, tmp_path / "first", hospitals)
    second = run_study(study, tmp_path / "second", hospitals)
    other = run_study(study.model_copy(update={"seed": 4}), tmp_path / "other", hospitals)
    assert first.final_weights_sha256 == second.final_weights_sha256
    assert first.final_weights_sha256 != other.final_weights_sha256
    assert [site.test_confusion for site in first.sites] == [site.test_confusion for site in second.sites]
    assert first.outcome == "complete"
    assert first.exit_code() is ExitCode.OK
    assert len(first.rounds) == study.federation.rounds


def test_a_packaged_study_makes_its_own_hospitals_and_writes_result_and_report(tmp_path: Path) -> None:
    result = run_study(load_study("phantom_smoke"), tmp_path, compare_local=True)
    assert StudyResult.model_validate(json.loads((tmp_path / "result.json").read_text())) == result
    assert all(site.local_only_confusion is not None for site in result.sites)
    assert len((tmp_path / "sites.csv").read_text().splitlines()) == 1 + len(result.sites)
    assert "macro-F1" in (tmp_path / "sites.md").read_text()
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert result.digest[:12] in page
    markup = re.sub(r"(<script[^>]*>).*?</script>", r"\1", page, flags=re.DOTALL)  # plotly's code holds links
    assert not re.search(r"(src|href)=.https?:", markup), "the page must work without a network"


def test_a_study_with_an_unknown_site_is_refused_before_anything_runs(
    study: StudyConfig, hospitals: Path, tmp_path: Path
) -> None:
    federation = study.federation.model_copy(update={"sites": ("north", "east")})
    with pytest.raises(SemcError) as caught:
        prepare(study.model_copy(update={"federation": federation}), hospitals, tmp_path)
    assert caught.value.code is ExitCode.DATA_NOT_FOUND
    assert "east" in caught.value.problem
