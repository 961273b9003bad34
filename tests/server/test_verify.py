"""`semc-server verify` on runs as they lie in a coordinator's home: intact, changed, cut short, unfinished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from typer.testing import CliRunner, Result

from semc.reporting import StudyResult
from semc.reporting.receipt import Kind, SignedReceipt
from server.cli import app, main
from server.events import Event, EventLog
from server.global_model import weights_sha256
from server.home import Home
from server.receipt_signing import ReceiptSigner
from server.round_checkpoint import RoundCheckpoints, SavedRound
from server.run_folder import RunFolder
from tests.semc.reporting.made_receipts import DROPPED, IN, signed_result
from tests.server.federation import tiny_model, tiny_study

STUDY = tiny_study()
RUN = "tiny-001"


def model(number: int) -> dict[str, Tensor]:
    return {name: tensor + number for name, tensor in tiny_model().tensors.items()}


def digest_of(number: int) -> str:
    return weights_sha256(model(number), STUDY.federation.wire_dtype)


class RunMaker:
    """Writes what a coordinator leaves of a run of two rounds."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.folder = RunFolder(self.home.runs / RUN)
        self.folder.root.mkdir(parents=True)
        self.folder.study_file.write_text(STUDY.to_yaml(), encoding="utf-8")
        self.signer = ReceiptSigner.load_or_make(self.home.receipts_key)
        self.receipts: list[SignedReceipt] = []

    def sign(self, number: int, kind: Kind, outgoing: str, missing: str = "") -> None:
        sites = {site: DROPPED if site == missing else IN for site in STUDY.federation.sites}
        self.receipts.append(
            self.signer.sign(
                study_digest=STUDY.digest(),
                run=RUN,
                round_number=number,
                kind=kind,
                sites=sites,
                incoming_sha256=digest_of(number - 1),
                outgoing_sha256=outgoing,
                before=self.receipts,
            )
        )

    def save(self, number: int, tensors: dict[str, Tensor] | None = None) -> None:
        checkpoints = RoundCheckpoints(self.folder.checkpoints, STUDY, tiny_model().shapes)
        saved = SavedRound(number, tensors or model(number), {}, {}, tuple(self.receipts))
        checkpoints.save(saved, None)

    def train(self, rounds: int, missing: str = "") -> None:
        for number in range(1, rounds + 1):
            self.sign(number, "train", digest_of(number), missing if number == 2 else "")
            self.save(number)

    def finish(self, **changes: Any) -> None:
        content = {"digest": STUDY.digest(), "receipts_public_key": self.signer.public_key}
        result = signed_result(self.receipts, **(content | changes))
        self.folder.result_file.write_text(result.model_dump_json(), encoding="utf-8")
        EventLog(self.folder.events_file).write(Event.FINISHED, outcome=result.outcome)

    def change_result(self, **changes: Any) -> None:
        result = StudyResult.model_validate_json(self.folder.result_file.read_text(encoding="utf-8"))
        text = result.model_copy(update=changes).model_dump_json()
        self.folder.result_file.write_text(text, encoding="utf-8")

    def verify(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["verify", "--home", str(self.home.root), *arguments])

    def refusal(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
        """Return the one line that the program ends with."""
        monkeypatch.setattr("sys.argv", ["semc-server", "verify", "--home", str(self.home.root)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 31
        told = capsys.readouterr()
        assert told.out == ""
        return told.err


@pytest.fixture
def made(tmp_path: Path) -> RunMaker:
    return RunMaker(tmp_path / "coordinator")


@pytest.fixture
def subset(made: RunMaker) -> RunMaker:
    """A finished run in whose second round south was missing."""
    made.train(2, missing="south")
    made.sign(3, "evaluate", "")
    made.finish()
    return made


def test_a_whole_run_is_told_round_by_round(made: RunMaker) -> None:
    made.train(2)
    made.sign(3, "evaluate", "")
    made.finish()
    done = made.verify()
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        "round 1: in: north (33.3%), south (33.3%), west (33.3%)",
        "round 2: in: north (33.3%), south (33.3%), west (33.3%)",
    ]
    assert lines[2].startswith("round 3, the closing evaluation: in: north")
    assert f"signed with key {made.signer.public_key} (SHA256:" in lines[3]
    assert lines[4] == f"last receipt: {made.receipts[-1].sha256()}"
    assert lines[5] == f"the receipts of run {RUN} are as they were signed; outcome: complete"


def test_a_subset_is_sound_and_never_plain_success(subset: RunMaker) -> None:
    done = subset.verify()
    assert done.exit_code == 51
    assert (
        "round 2: in: north (50.0%), west (50.0%); not in: south dropped at upload (D_UPLOAD)" in done.stdout
    )
    assert "outcome: complete on subset" in done.stdout
    told = json.loads(subset.verify("--format", "json").stdout)
    assert told["outcome"] == "complete_on_subset"
    assert told["head"] == subset.receipts[-1].sha256()
    assert [receipt["round"] for receipt in told["receipts"]] == [1, 2, 3]
    assert told["receipts"][1]["sites"]["south"]["stage"] == "upload"


def test_an_unfinished_run_is_verified_from_its_newest_checkpoint(made: RunMaker) -> None:
    EventLog(made.folder.events_file).write(Event.STARTED)
    made.save(0)
    assert "last receipt: none, no round was closed" in made.verify().stdout
    made.train(1)
    done = made.verify(RUN)
    assert done.exit_code == 52, "it is sound, and it is no whole study"
    assert "outcome: interrupted" in done.stdout
    assert "round 1: in: north" in done.stdout


def test_a_run_that_goes_on_after_a_stop_is_not_judged_by_the_result_of_the_stop(made: RunMaker) -> None:
    made.train(1)
    stopped = list(made.receipts)
    made.sign(2, "train", "", missing="south")
    made.finish()
    assert made.verify().exit_code == 50
    made.receipts = stopped  # the round below its quorum begins again from its checkpoint
    made.sign(2, "train", digest_of(2))
    made.save(2)
    assert getattr(made.verify().exception, "code", None) == 31
    EventLog(made.folder.events_file).write(Event.SUBMITTED)
    with made.folder.lock():
        done = made.verify()
    assert (done.exit_code, "outcome: running" in done.stdout) == (0, True)
    made.sign(3, "evaluate", "")
    made.finish()
    assert made.verify().exit_code == 0


def test_a_round_below_its_quorum_says_so(made: RunMaker) -> None:
    made.train(1)
    made.sign(2, "train", "", missing="south")
    made.finish()
    done = made.verify()
    assert done.exit_code == 50
    assert "; below its quorum, no new weights" in done.stdout


def test_another_coordinators_run_is_verified_with_its_public_key(subset: RunMaker, tmp_path: Path) -> None:
    key = subset.signer.public_key
    subset.home.receipts_key.unlink()
    assert subset.verify("--public-key", key).exit_code == 51
    (tmp_path / "key.txt").write_text(f"{key}\n", encoding="utf-8")
    assert subset.verify("--public-key", str(tmp_path / "key.txt")).exit_code == 51
    assert not subset.home.receipts_key.exists()  # a verifier makes no key
    error = subset.verify().exception
    assert getattr(error, "code", None) == 43
    other = ReceiptSigner.load_or_make(tmp_path / "other.key").public_key
    assert "names another key" in str(subset.verify("--public-key", other).exception)
    assert getattr(subset.verify("--public-key", "rubbish").exception, "code", None) == 43


def test_a_new_key_in_the_home_does_not_vouch_for_the_old_run(subset: RunMaker) -> None:
    """Whoever may write everything but read no key makes a new one: the old receipts are not of it."""
    subset.home.receipts_key.unlink()
    ReceiptSigner.load_or_make(subset.home.receipts_key)
    assert "names another key" in str(subset.verify().exception)


def test_a_subset_made_whole_is_found(
    subset: RunMaker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the result alone, then in the receipts with the hashes made anew."""
    subset.change_result(outcome="complete")
    assert "its signed receipts say complete on subset" in subset.refusal(capsys, monkeypatch)
    forged = list(subset.receipts)
    forged[1] = forged[1].model_copy(update={"sites": dict.fromkeys(forged[1].sites, IN)})
    forged[2] = forged[2].model_copy(update={"previous": forged[1].sha256()})
    subset.receipts = forged[:2]
    subset.save(2)
    subset.receipts = forged
    subset.finish()
    assert "Receipt 2 (round 2) was changed" in subset.refusal(capsys, monkeypatch)


def test_a_run_cut_short_is_found_by_its_checkpoint(
    subset: RunMaker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, subset.receipts = subset.receipts, subset.receipts[:1]
    subset.finish(outcome="failed")
    assert "Receipt 2 (round 2), which the newest checkpoint has" in subset.refusal(capsys, monkeypatch)
    subset.save(2)  # the checkpoint's own receipts shortened too
    assert "newest checkpoint is of round 2, its last receipt is not" in subset.refusal(capsys, monkeypatch)
    subset.receipts = whole
    subset.save(2)
    subset.finish()
    assert subset.verify().exit_code == 51


def test_weights_that_no_round_made_are_found(
    subset: RunMaker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    subset.receipts = subset.receipts[:2]
    subset.save(2, model(9))
    assert "weights are not those signed in round 2" in subset.refusal(capsys, monkeypatch)


def test_a_result_of_another_run_is_found(
    subset: RunMaker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    subset.folder.root.rename(subset.home.runs / "tiny-002")
    assert "Receipt 1 (round 1) is of another run" in subset.refusal(capsys, monkeypatch)


def test_damaged_files_are_told(
    subset: RunMaker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = subset.folder.checkpoints / "round-0002" / "state.json"
    whole = state.read_text(encoding="utf-8")
    state.write_text(whole.replace("D_UPLOAD", "E_DATA"), encoding="utf-8")
    assert "'round-0002' is missing, damaged" in subset.refusal(capsys, monkeypatch)
    state.write_text(whole, encoding="utf-8")
    subset.folder.result_file.write_text("{}", encoding="utf-8")
    assert "no readable result" in subset.refusal(capsys, monkeypatch)
