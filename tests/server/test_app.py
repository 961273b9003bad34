"""The ServerApp: which folder it takes, and that whoever watches learns why a run stopped."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.app import Context, RecordDict
from rich.console import Console

from semc import protocol
from semc.config import StudyConfig, parse_study
from semc.exit_codes import ExitCode, SemcError
from server.app import build_app
from server.events import Event, EventLog, EventReader
from server.follow import follow
from server.home import HOME_VARIABLE, Home
from server.ledger_heads import Asked, LedgerHeads
from server.progress import LiveProgress
from server.run_folder import RunFolder
from server.run_state import RunState, run_state
from tests.semc.reporting.study_result import study_result
from tests.server.federation import ScriptedGrid, ScriptedSite, registry_of, tiny_model, tiny_study
from tests.server.private_federation import TRAINED, private, private_study


def _context(**run_config: Any) -> Context:
    return Context(run_id=7, node_id=1, node_config={}, state=RecordDict(), run_config=run_config)


def _study(**federation: Any) -> StudyConfig:
    """Return a study whose real network is small."""
    text = tiny_study(**federation).to_yaml()
    return parse_study(text, {"model.backbone": "tiny"})


def _folder(root: Path, study: StudyConfig) -> RunFolder:
    folder = RunFolder(root)
    folder.create(study, registry_of({"north": 1, "south": 2, "west": 3}))
    return folder


def _failed(folder: RunFolder) -> dict[str, Any]:
    *_, last = EventReader(folder.events_file).new()
    return dict(last)


def test_run_that_stops_tells_code_problem_and_fix(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "run", _study())
    grid = ScriptedGrid([ScriptedSite("north")])
    with pytest.raises(SemcError) as caught:
        build_app(folder.root)(grid, _context())
    assert caught.value.code is ExitCode.QUORUM_LOST
    last = _failed(folder)
    assert (last["event"], last["code"], last["problem"]) == ("failed", 50, caught.value.problem)
    with pytest.raises(SemcError) as followed:
        follow(Home(tmp_path), folder, EventReader(folder.events_file), lambda event: None)
    assert followed.value.line() == caught.value.line()


def test_unforeseen_error_is_told_without_its_text(tmp_path: Path) -> None:
    class Broken(ScriptedGrid):
        def get_nodes(self) -> Any:
            raise RuntimeError("connection to /secret/place lost")

    folder = _folder(tmp_path / "run", _study())
    with pytest.raises(RuntimeError):
        build_app(folder.root)(Broken([]), _context())
    assert _failed(folder)["code"] == ExitCode.INTERNAL
    assert "secret" not in folder.events_file.read_text()


def test_a_deployed_run_knows_the_ledger_heads_of_its_home_and_adds_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    run = home.run("tiny-1")
    assert run is not None
    _folder(run.root, private_study())
    LedgerHeads(home.ledger_heads).accept("north", "a" * 64, Asked("another study", 1, "w"))
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    monkeypatch.setattr("server.rounds.initial_model", lambda *_: tiny_model([TRAINED]))
    sites = [ScriptedSite(name, answer=private) for name in ("north", "south", "west")]
    build_app()(ScriptedGrid(sites), _context(run="tiny-1"))
    first = [site.received[1].content[protocol.CONFIG].get(protocol.LEDGER_HEAD) for site in sites]
    assert first == ["a" * 64, None, None]
    assert len(home.ledger_heads.read_text().splitlines()) == 1 + 2 * 3
    assert not (run.root / "ledger-heads.jsonl").exists()


@pytest.mark.parametrize("name", ["../outside", "absent-1", "", 3])
def test_bundle_cannot_name_a_folder_outside_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: object
) -> None:
    _folder(tmp_path / "outside", _study())
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    with pytest.raises(SemcError) as caught:
        build_app()(ScriptedGrid([]), _context(run=name))
    assert caught.value.code is ExitCode.CONFIG_NOT_FOUND


def test_bundle_names_the_run_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _folder(tmp_path / "runs" / "tiny-1", _study(join_timeout_seconds=0.05))
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    with pytest.raises(SemcError) as caught:
        build_app()(ScriptedGrid([]), _context(run="tiny-1"))
    assert caught.value.code is ExitCode.QUORUM_LOST
    assert folder.result().outcome == "quorum_lost"


def test_progress_shows_rounds_scores_and_who_is_missing() -> None:
    out = io.StringIO()
    events: list[dict[str, Any]] = [
        {"event": "started", "sites": ["north", "south"], "rounds": 2, "digest": "d"},
        {"event": "joined", "site": "north"},
        {"event": "not-joined", "site": "south", "state": "declined", "reason": "E_STUDY"},
        {"event": "round", "round": 1, "of": 2},
        {"event": "reply", "round": 1, "site": "north", "state": "in", "reason": "", "train_loss": 1.0},
        {
            "event": "reply",
            "round": 1,
            "site": "south",
            "state": "late",
            "stage": "train",
            "reason": "L_DEADLINE",
        },
        {"event": "aggregated", "round": 1, "seconds": 1.0},
        {
            "event": "evaluated",
            "round": 1,
            "measured_on": "validation",
            "mean_macro_f1": 0.51,
            "worst_macro_f1": 0.4,
            "worst_site": "north",
        },
        {"event": "closing"},
        {"event": "finished", "outcome": "complete_on_subset", "seconds": 2.0},
    ]
    with LiveProgress(Console(file=out, width=100)) as progress:
        for event in events:
            progress.show(event)
    text = out.getvalue()
    assert "joined: north" in text
    assert "not joined: south declined (E_STUDY)" in text
    assert "round 1: south late at train (L_DEADLINE)" in text
    assert "round 1: validation macro-F1 0.510, worst 0.400 at north" in text


def test_a_finished_run_that_is_submitted_again_is_not_begun_again(tmp_path: Path) -> None:
    """Control: the same folder without its last word is run through again."""
    folder = _folder(tmp_path / "run", _study(join_timeout_seconds=0.05))
    done = study_result()
    folder.write_result(done)
    EventLog(folder.events_file).write(Event.FINISHED, outcome="complete", seconds=1.0)
    build_app(folder.root)(ScriptedGrid([]), _context())
    assert folder.result() == done
    folder.events_file.unlink()
    with pytest.raises(SemcError):
        build_app(folder.root)(ScriptedGrid([]), _context())
    assert folder.result().outcome == "quorum_lost"


def test_an_error_of_the_superlink_leaves_no_word_so_that_the_run_is_brought_back(tmp_path: Path) -> None:
    class Broken(ScriptedGrid):
        def get_nodes(self) -> Any:
            raise httpx.ReadError("the SuperLink's disk is full")

    folder = _folder(tmp_path / "run", _study())
    EventLog(folder.events_file).write(Event.SUBMITTED)
    with pytest.raises(httpx.ReadError):
        build_app(folder.root)(Broken([]), _context())
    assert run_state(folder) is RunState.INTERRUPTED
