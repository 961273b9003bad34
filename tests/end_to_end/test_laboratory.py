"""Comparison of arms and a left-out centre, whole: trained, scored, tabulated, and not repeated when called again."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from semc.config import StudyConfig
from semc.reporting import StudyResult
from semc.reporting.predictions import read_predictions
from simulation.cli import app


def _run(*arguments: str) -> dict[str, str]:
    done = CliRunner().invoke(app, [*arguments, "--format", "json"])
    assert done.exit_code == 0, done.output
    files: dict[str, str] = json.loads(done.stdout[done.stdout.index("{\n") :])
    return files


def test_one_arm_is_trained_scored_and_tabulated(hospitals: Path, study: StudyConfig, tmp_path: Path) -> None:
    """One round; the test below runs every arm over all rounds, and a left-out centre."""
    file, out = tmp_path / "study.yaml", tmp_path / "out"
    federation = study.federation.model_copy(update={"rounds": 1})
    file.write_text(study.model_copy(update={"federation": federation}).to_yaml(), encoding="utf-8")
    common = (str(file), "--sites", str(hospitals), "--out", str(out), "--seeds", "0")
    files = _run("compare", *common, "--arms", "silo")
    records, _ = read_predictions(Path(files["predictions"]))
    assert {(r.model_site, r.test_site) for r in records if r.protocol == "per_site"} == {
        (name, name) for name in study.federation.sites
    }
    assert pd.read_csv(files["csv"])["macro_f1"].between(0, 1).all()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compare_then_leave_one_centre_out(hospitals: Path, study: StudyConfig, tmp_path: Path) -> None:
    file, out = tmp_path / "study.yaml", tmp_path / "out"
    file.write_text(study.to_yaml(), encoding="utf-8")
    common = (str(file), "--sites", str(hospitals), "--out", str(out), "--seeds", "0")
    compare = ("compare", *common, "--arms", "local,pooled,silo", "--keep-models")
    files = _run(*compare)

    records, classes = read_predictions(Path(files["predictions"]))
    assert classes == study.data.classes
    per_site = {(r.arm, r.model_site, r.test_site) for r in records if r.protocol == "per_site"}
    names = study.federation.sites
    assert per_site == {
        *(("local", name, name) for name in names),
        *(("silo", name, name) for name in names),
        *(("pooled", "", name) for name in names),
    }
    crossed = {(r.arm, r.model_site, r.test_site) for r in records if r.protocol == "cross_site"}
    assert crossed == {(arm, a, b) for arm in ("local", "silo") for a in names for b in names if a != b}
    table = pd.read_csv(files["csv"])
    assert len(table) == len(records)
    assert table["macro_f1"].between(0, 1).all()
    assert "silo" in Path(files["tables"]).read_text(encoding="utf-8")
    terms = pd.read_csv(files["terms"])
    assert {"alpha", "moe"} <= set(terms["term"])
    rounds = set(range(1, study.federation.rounds + 1))
    for arm, sites in (("local", set(names)), ("silo", set(names)), ("pooled", {"pooled"})):
        own = terms[terms["arm"] == arm]
        assert set(own["site"]) == sites
        assert set(own["round"]) == rounds

    # What the laboratory scored is what the hospitals themselves counted at the end of the federation.
    (written,) = (out / "arms" / "silo" / "seed-0" / "work").rglob("result.json")
    counted = StudyResult.model_validate_json(written.read_text(encoding="utf-8"))
    scored = {r.test_site: r for r in records if r.arm == "silo" and r.protocol == "per_site"}
    for site in counted.sites:
        assert scored[site.site].confusion.to_list() == site.test_confusion

    # The same call again reads everything back: the same bytes, without training.
    before = {name: Path(path).read_bytes() for name, path in files.items() if name != "report"}
    started = time.monotonic()
    assert {
        name: Path(path).read_bytes() for name, path in _run(*compare).items() if name != "report"
    } == before
    assert time.monotonic() - started < 30

    # A left-out centre: the yardsticks of the comparison serve, one federation of the others is trained.
    stamp = (out / "arms" / "local" / "seed-0" / "finished.json").stat().st_mtime_ns
    files = _run("loco", *common, "--arm", "silo", "--centres", "west", "--images", "4,8,9999")
    assert (out / "arms" / "local" / "seed-0" / "finished.json").stat().st_mtime_ns == stamp
    records, _ = read_predictions(Path(files["predictions"]))
    conditions = {r.condition for r in records}
    assert conditions == {"local", "pooled", "none", "bn_4", "bn_8", "bn_all", "fine_tune_10"}
    assert "No statistics from 9999 images" in Path(files["report"]).read_text(encoding="utf-8")
    assert {r.test_site for r in records} == {"west"}
    assert {r.protocol for r in records} == {"loco"}
