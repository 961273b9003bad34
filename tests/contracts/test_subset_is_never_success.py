"""A run that ends on a subset can never print or return plain success, by whatever path its end is learnt.

The index of those paths: every command of the coordinator and of the laboratory is either tested here, or named as one
that says nothing of a run's end. Stand-ins replace what trains; what tells of the end is the real program. Each path
has its control: with a whole run the same check finds plain success.
"""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from plotly.offline import get_plotlyjs
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner

import server.cli
import simulation.cli
import simulation.demo
import simulation.study_run
from semc.config import load_study
from semc.exit_codes import ExitCode, SemcError
from semc.reporting import StudyResult
from semc.reporting.receipt import SignedReceipt
from semc.reporting.report import render_report, write_study_report
from semc.reporting.result import OUTCOME_EXIT_CODES, OUTCOMES
from semc.reporting.tables import site_csv, site_markdown, site_table
from server.events import Event, EventLog, EventReader
from server.follow import follow
from server.home import Endpoint, Home
from server.receipt_signing import ReceiptSigner
from server.round_checkpoint import RoundCheckpoints, SavedRound
from server.run_folder import RunFolder
from server.tls import ensure_certificates
from simulation.arm_run import run_arm
from simulation.arms import parse_arm
from simulation.left_out import leave_out
from simulation.run import Resources, SimulatedRun, run_whole
from tests.semc.reporting.made_receipts import DROPPED, IN, LATE, chain, signed_result
from tests.semc.reporting.private_result import private_result
from tests.semc.reporting.study_result import SITES, study_result

ROOT = Path(__file__).resolve().parents[2]
NOT_WHOLE = [outcome for outcome in OUTCOMES if outcome != "complete"]
RUN = "three_sites-001"

SERVER_COMMANDS = {
    "run": "test_run_and_resume",
    "resume": "test_run_and_resume",
    "status": "test_status",
    "report": "test_report_and_export",
    "export": "test_report_and_export",
    "verify": "test_verify",
    "up": "",
    "enrol": "",
    "revoke": "",
    "new-ledger": "",
}
SIMULATION_COMMANDS = {
    "run": "test_simulated_run",
    "demo": "test_demo",
    "compare": "test_laboratory",
    "loco": "test_laboratory",
    "utility": "",  # no rounds, no receipts: every hospital's patients are trained on in one process
    "arms": "",
    "sites": "",
    "phantom": "",
    "inspect": "",
    "describe": "",
}


def plain_success(code: int, text: str) -> bool:
    """Tell whether a person or a script could take this for a whole study."""
    says = re.search(
        r"subset|stopped: a round|quorum|failed: the study|not finished", " ".join(text.split()), re.I
    )
    return code == 0 and says is None


def result_of(outcome: str) -> StudyResult:
    return study_result().model_copy(update={"outcome": outcome})


class FinishedRun:
    """A coordinator's home with one run that ended as said."""

    def __init__(self, root: Path, outcome: str) -> None:
        self.home = Home(root)
        self.folder = RunFolder(self.home.runs / RUN)
        self.folder.root.mkdir(parents=True)
        study = load_study("demo_phantom")
        self.folder.study_file.write_text(study.to_yaml(), encoding="utf-8")
        signer = ReceiptSigner.load_or_make(self.home.receipts_key)
        receipts: list[SignedReceipt] = []
        for number in (1, 2):
            closing = number == 2
            if closing and outcome in ("quorum_lost", "failed"):
                break
            missing = {"south": DROPPED} if outcome == "complete_on_subset" and not closing else {}
            receipts.append(
                signer.sign(
                    study_digest=study.digest(),
                    run=RUN,
                    round_number=number,
                    kind="evaluate" if closing else "train",
                    sites={**dict.fromkeys(SITES, IN), **missing},
                    incoming_sha256=f"{number}" * 64,
                    outgoing_sha256="" if closing else "2" * 64,
                    before=receipts,
                )
            )
        self.result = signed_result(
            receipts, outcome=outcome, digest=study.digest(), receipts_public_key=signer.public_key
        )

    def write(self) -> None:
        """End the run as the round loop does."""
        self.folder.result_file.write_text(self.result.model_dump_json(), encoding="utf-8")
        events, outcome = EventLog(self.folder.events_file), self.result.outcome
        events.write(Event.FINISHED, outcome=outcome, seconds=1.0)
        if not outcome.startswith("complete"):
            code = OUTCOME_EXIT_CODES[outcome]
            events.write(Event.FAILED, code=int(code), problem="Round 2 ended.", fix="mend it")

    def command(self, *words: str) -> tuple[int, str]:
        """Return exit code and everything printed."""
        done = CliRunner().invoke(server.cli.app, [*words, "--home", str(self.home.root)])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout + done.stderr


@pytest.fixture(params=OUTCOMES)
def ended(request: pytest.FixtureRequest, tmp_path: Path) -> FinishedRun:
    run = FinishedRun(tmp_path / "coordinator", request.param)
    run.write()
    return run


def whole(run: FinishedRun) -> bool:
    return run.result.outcome == "complete"


def test_every_command_is_on_the_list() -> None:
    assert set(get_command(server.cli.app).commands) == set(SERVER_COMMANDS)  # type: ignore[attr-defined]
    assert set(get_command(simulation.cli.app).commands) == set(SIMULATION_COMMANDS)  # type: ignore[attr-defined]
    tests = {*SERVER_COMMANDS.values(), *SIMULATION_COMMANDS.values()} - {""}
    assert all(any(name.startswith(test) for name in globals()) for test in tests)


def test_each_outcome_has_a_number_and_words_of_its_own() -> None:
    codes = list(OUTCOME_EXIT_CODES.values())
    assert len(set(codes)) == len(OUTCOMES) == len(set(OUTCOMES.values()))
    assert [outcome for outcome, code in OUTCOME_EXIT_CODES.items() if code == 0] == ["complete"]
    assert plain_success(0, OUTCOMES["complete"])
    assert not any(plain_success(0, OUTCOMES[outcome]) for outcome in NOT_WHOLE)
    assert plain_success(0, "report: report.html")


# semc-server


@pytest.mark.parametrize("output", ["text", "json"])
def test_run_and_resume_end_with_the_number(tmp_path: Path, output: str) -> None:
    """The process that follows a run while it ends; `run` and `resume` follow with the same words."""
    for outcome in ("complete", "complete_on_subset", "quorum_lost"):
        run = FinishedRun(tmp_path / outcome, outcome)
        EventLog(run.folder.events_file).write(Event.STARTED, sites=SITES, rounds=1)
        command = [sys.executable, "-m", "server.cli", "resume", RUN, "--format", output]
        with run.folder.lock():
            process = subprocess.Popen(
                [*command, "--home", str(run.home.root)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            assert process.stderr is not None
            assert f"going on with run {RUN}" in process.stderr.readline()
            run.write()
            out, err = process.communicate(timeout=60)
        assert process.returncode == OUTCOME_EXIT_CODES[run.result.outcome], err
        assert plain_success(process.returncode, out + err) == (outcome == "complete")
        if output == "json" and outcome != "quorum_lost":
            assert json.loads(out)["outcome"] == outcome
        elif outcome == "complete_on_subset":
            assert "complete on subset; run" in out


def test_run_and_resume_raise_what_stopped_a_run(ended: FinishedRun) -> None:
    events, expected = EventReader(ended.folder.events_file), ended.result.outcome
    if expected.startswith("complete"):
        assert follow(ended.home, ended.folder, events, lambda _: None).outcome == expected
        return
    with pytest.raises(SemcError, match="Round 2 ended") as caught:
        follow(ended.home, ended.folder, events, lambda _: None)
    assert caught.value.code is OUTCOME_EXIT_CODES[expected]


def test_status_names_the_outcome(ended: FinishedRun) -> None:
    ensure_certificates(ended.home, [])
    ended.home.write_endpoint(Endpoint("127.0.0.1:9", "127.0.0.1:9", 1))
    code, text = ended.command("status")
    (line,) = [line for line in text.splitlines() if line.startswith(f"run {RUN}")]
    assert line.startswith(f"run {RUN}: {ended.result.outcome.replace('_', ' ')};")
    told = json.loads(ended.command("status", "--format", "json")[1])
    assert told["runs"][0]["outcome"] == ended.result.outcome
    assert code == ExitCode.SERVER_UNREACHABLE  # of the coordinator, which is down; never of the run


def test_report_and_export_say_on_standard_error_what_they_are_of(ended: FinishedRun, tmp_path: Path) -> None:
    """They end with 0, since page and weights are written; the words beside them say of what."""
    weights = {"w": torch.zeros(1)}
    checkpoints = RoundCheckpoints(ended.folder.checkpoints, ended.folder.study(), {"w": (1,)})
    checkpoints.save(SavedRound(1, weights, {}, {}, ()), None)
    for words in (("report", "--out", f"{tmp_path}/r.html"), ("export", "--out", f"{tmp_path}/model")):
        done = CliRunner().invoke(server.cli.app, [*words, "--home", str(ended.home.root)])
        assert done.exit_code == 0, done.exception
        assert done.stderr == f"run {RUN}: {OUTCOMES[ended.result.outcome]}\n"
        assert plain_success(0, done.stderr) == whole(ended)


def test_report_and_export_of_a_run_that_goes_on(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path, "quorum_lost")
    run.write()
    EventLog(run.folder.events_file).write(Event.SUBMITTED)
    code, text = run.command("report", "--out", str(tmp_path / "r.html"))
    assert f"run {RUN}: Not finished (waiting)" in text
    assert not plain_success(code, text)


@pytest.mark.parametrize("output", ["text", "json"])
def test_verify_returns_how_the_run_ended(ended: FinishedRun, output: str) -> None:
    code, text = ended.command("verify", "--format", output)
    assert code == OUTCOME_EXIT_CODES[ended.result.outcome]
    assert ended.result.outcome.replace("_", " ") in text.replace("_", " ")
    assert plain_success(code, text) == whole(ended)


# The page and the tables


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("make", [study_result, private_result])
def test_page_and_tables_begin_with_it(outcome: str, make: type[StudyResult], tmp_path: Path) -> None:
    result = make().model_copy(update={"outcome": outcome})
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(site_table(result))
    page = render_report(result).replace(get_plotlyjs(), "")
    head = page.partition("<h2>The question</h2>")[0]
    for text in (console.export_text(), site_markdown(result), head):
        assert plain_success(0, text) == (outcome == "complete")
        assert (OUTCOMES[outcome] in " ".join(text.split())) == (outcome != "complete")
    assert (f"({outcome.replace('_', ' ')})</title>" in page) == (outcome != "complete")
    assert page.count(OUTCOMES[outcome]) >= (1 if outcome == "complete" else 4)
    assert {row["outcome"] for row in csv.DictReader(io.StringIO(site_csv(result)))} == {outcome}
    write_study_report(result, tmp_path)
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["outcome"] == outcome


def test_half_a_study_settles_nothing() -> None:
    assert "Yes, in this study." in render_report(result_of("complete"))
    for outcome in ("quorum_lost", "failed"):
        page = render_report(result_of(outcome))
        assert "Yes, in this study." not in page
        assert "Not settled by this one run." in page


def test_who_was_missing_only_at_the_end_is_named() -> None:
    page = render_report(signed_result(chain(3, {4: {"west": LATE}})))
    assert "late at train (L_DEADLINE) in the closing evaluation" in page
    assert "in the closing evaluation" not in render_report(signed_result())


# semc-sim


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("output", ["text", "json"])
def test_simulated_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outcome: str, output: str) -> None:
    monkeypatch.setattr(simulation.study_run, "make_sites", lambda *_: None)
    monkeypatch.setattr(simulation.study_run, "prepare", lambda study, _, out: SimulatedRun(study, out))
    monkeypatch.setattr(simulation.study_run, "run_simulation", lambda *_: result_of(outcome))
    words = ["run", "phantom_smoke", "--out", str(tmp_path), "--format", output]
    done = CliRunner().invoke(simulation.cli.app, words)
    assert done.exit_code == OUTCOME_EXIT_CODES[result_of(outcome).outcome], done.exception
    assert plain_success(done.exit_code, done.stdout) == (outcome == "complete")
    if output == "json":
        assert json.loads(done.stdout)["outcome"] == outcome
    else:
        assert done.stdout.splitlines()[-1] == OUTCOMES[result_of(outcome).outcome]


class StandInRehearsal:
    """Takes the place of coordinator and hospitals; ends as told."""

    outcome = "complete"

    def __init__(self, folder: Path, *_: object) -> None:
        self.home = folder

    def __enter__(self) -> StandInRehearsal:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, *_: object, **__: object) -> int:
        return int(OUTCOME_EXIT_CODES[result_of(self.outcome).outcome])


@pytest.fixture
def demo_stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[StandInRehearsal]]:
    monkeypatch.setattr(simulation.demo, "Rehearsal", StandInRehearsal)
    monkeypatch.setattr(
        simulation.demo, "read_result", lambda _: result_of(StandInRehearsal.outcome).model_dump()
    )
    monkeypatch.setattr(simulation.demo, "local_only", lambda *_: {})
    monkeypatch.setattr(simulation.demo, "sample_images", lambda *_: [])
    monkeypatch.setattr(simulation.demo, "_site_data", lambda *_: None)
    yield StandInRehearsal
    StandInRehearsal.outcome = "complete"


@pytest.mark.parametrize("output", ["text", "json"])
def test_demo(demo_stand_in: type[StandInRehearsal], tmp_path: Path, output: str) -> None:
    for outcome in OUTCOMES:
        demo_stand_in.outcome = outcome
        out = tmp_path / outcome
        done = CliRunner().invoke(simulation.cli.app, ["demo", "--out", str(out), "--format", output])
        if outcome in ("quorum_lost", "failed"):
            assert isinstance(done.exception, SemcError)
            assert done.exception.code is OUTCOME_EXIT_CODES[result_of(outcome).outcome]
            continue
        assert done.exit_code == OUTCOME_EXIT_CODES[result_of(outcome).outcome], done.exception
        assert plain_success(done.exit_code, done.stdout) == (outcome == "complete")
        if output == "text":
            assert OUTCOMES[result_of(outcome).outcome] in " ".join(done.stdout.split())


@pytest.mark.parametrize("outcome", NOT_WHOLE)
def test_laboratory_takes_no_such_run_into_a_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, outcome: str
) -> None:
    """Arms of `compare` and left-out centres of `loco`: the training is refused before anything is scored."""
    study = load_study("phantom_smoke")
    monkeypatch.setattr("simulation.run.run_simulation", lambda *_: result_of(outcome))
    prepared = SimulatedRun(study, tmp_path)
    for module in ("simulation.arm_run", "simulation.left_out"):
        monkeypatch.setattr(f"{module}.prepare", lambda *_: prepared)
    attempts = (
        lambda: run_whole(prepared),
        lambda: run_arm(parse_arm("fedavg"), study, tmp_path, tmp_path, Resources()),
        lambda: leave_out("fedavg", study, "north", (4,), tmp_path, tmp_path, resources=Resources()),
    )
    for attempt in attempts:
        with pytest.raises(SemcError, match="cannot be compared") as caught:
            attempt()
        assert caught.value.code is OUTCOME_EXIT_CODES[result_of(outcome).outcome]


def test_laboratory_has_no_other_way_to_a_federation() -> None:
    """Whoever calls the simulation without asking for a whole run must tell its outcome: that is `semc-sim run`."""
    callers = {
        path.name
        for path in (ROOT / "simulation").glob("*.py")
        if re.search(r"\brun_simulation\(", path.read_text(encoding="utf-8"))
    }
    assert callers == {"run.py", "study_run.py"}
