"""A round loop that dies anywhere, and the one that goes on: the same weights, nothing lost, nothing counted twice."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from semc import protocol
from semc.checkpoint import saved_states
from semc.config import StudyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.reporting import StudyResult
from semc.reporting.receipt import verify_chain
from server.events import Event, EventReader
from server.registry import Enrolment, Registry
from server.rounds import run_study
from server.run_folder import RunFolder
from tests.server.federation import (
    FAST,
    ScriptedGrid,
    ScriptedSite,
    error_reply,
    honest,
    registry_of,
    tiny_model,
    tiny_study,
)

SIZES = {"north": 10, "south": 20, "west": 70}
STUDY = tiny_study(rounds=3, algorithm="fedadam")


class Killed(BaseException):
    """Stands for kill -9: nothing in the round loop may catch it."""


def run(folder: Path, answers: dict[str, Any] | None = None, study: StudyConfig = STUDY) -> StudyResult:
    """Run the study, or what is left of it, with three sites that add 1, 2 and 3."""
    folder.mkdir(exist_ok=True)
    sites = [
        ScriptedSite(name, step=float(step), answer=(answers or {}).get(name))
        for step, name in enumerate(SIZES, start=1)
    ]
    return run_study(
        ScriptedGrid(sites), study, registry_of(SIZES), RunFolder(folder), model=tiny_model(), pace=FAST
    )


def killed_at(call: int, function: Callable[..., Any], *, after: bool = False) -> Callable[..., Any]:
    """Return a function that kills the process at its n-th call, before or after doing its work."""
    calls = Counter[str]()

    def killing(*args: Any, **kwargs: Any) -> Any:
        calls["n"] += 1
        if calls["n"] == call and not after:
            raise Killed
        result = function(*args, **kwargs)
        if calls["n"] == call:
            raise Killed
        return result

    return killing


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """The study without an interruption."""
    return run(tmp_path_factory.mktemp("straight"))


def dies_last(folder: Path) -> Callable[[ScriptedSite, Message], Message | None]:
    """Return a site's script: once both others' first answers are kept, the round loop is killed."""

    def dies(site: ScriptedSite, message: Message) -> None:
        if len(list((folder / "spool" / "round-0001").glob("*.json"))) == 2:
            raise Killed

    return dies


POINTS = {
    "before a reply is kept": ("server.spool.Spool.keep", False),
    "after a reply is kept": ("server.spool.Spool.keep", True),
    "before aggregation": ("server.study_state.StudyState.aggregate", False),
    "after aggregation": ("server.study_state.StudyState.aggregate", True),
    "before the checkpoint": ("server.round_checkpoint.save_state", False),
    "in the checkpoint": ("semc.checkpoint._write_json", False),
    "after the checkpoint": ("server.round_checkpoint.save_state", True),
    "before the spool is cleared": ("server.spool.Spool.clear", False),
    "before the result": ("server.run_folder.RunFolder.write_result", False),
}


@pytest.mark.parametrize("call", [1, 2, 4, 8])
@pytest.mark.parametrize("point", POINTS)
def test_a_loop_killed_anywhere_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: StudyResult, point: str, call: int
) -> None:
    place, after = POINTS[point]
    owner, name = place.rsplit(".", 1)
    target = _object(owner)
    with monkeypatch.context() as patched:
        patched.setattr(target, name, killed_at(call, getattr(target, name), after=after))
        try:
            run(tmp_path / "run")
        except Killed:
            pass
        else:
            pytest.skip("this point is not reached that often")
    trained = Counter[tuple[str, int]]()

    def counting(site: ScriptedSite, message: Message) -> Message:
        number = int(message.content[protocol.CONFIG][protocol.SERVER_ROUND])
        trained[site.name, number] += 1
        return honest(site, message)

    kept = {
        (path.stem, int(path.parent.name.removeprefix("round-")))
        for path in (tmp_path / "run" / "spool").glob("round-*/*.json")
    }
    result = run(tmp_path / "run", dict.fromkeys(SIZES, counting))
    assert result.final_weights_sha256 == straight.final_weights_sha256
    assert result.outcome == "complete"
    assert [entry.train_loss for entry in result.rounds] == [entry.train_loss for entry in straight.rounds]
    assert [entry.validation for entry in result.rounds] == [entry.validation for entry in straight.rounds]
    assert [len(receipt.sites) for receipt in result.signed_receipts] == [3, 3, 3, 3]
    verify_chain(result.signed_receipts, result.receipts_public_key, count=4)
    assert set(trained.values()) <= {1}, "no site is asked twice for one round"
    assert not kept & set(trained), "whose answer is on disk is not asked again"


def _object(path: str) -> Any:
    import importlib

    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        owner, name = path.rsplit(".", 1)
        return getattr(_object(owner), name)


def test_without_the_kept_replies_the_sites_are_asked_again(tmp_path: Path) -> None:
    """The control: what the spool saves is a whole round of the other sites."""
    asked: list[str] = []

    def counting(site: ScriptedSite, message: Message) -> Message:
        asked.append(site.name)
        return honest(site, message)

    for emptied in (False, True):
        folder = tmp_path / str(emptied)
        with pytest.raises(Killed):
            run(folder, {"west": dies_last(folder)})
        kept = sorted(path.stem for path in (folder / "spool" / "round-0001").glob("*.json"))
        assert kept == ["north", "south"]
        if emptied:
            for path in (folder / "spool" / "round-0001").iterdir():
                path.unlink()
        asked.clear()
        run(folder, dict.fromkeys(SIZES, counting), tiny_study(rounds=3, algorithm="fedadam"))
        assert asked.count("north") == (4 if emptied else 3)


@pytest.mark.parametrize("what", ["tensors", "description"])
def test_a_damaged_kept_reply_is_asked_for_again(tmp_path: Path, straight: StudyResult, what: str) -> None:
    with pytest.raises(Killed):
        run(tmp_path / "run", {"west": dies_last(tmp_path / "run")})
    ending = "safetensors" if what == "tensors" else "json"
    victim = tmp_path / "run" / "spool" / "round-0001" / f"north.{ending}"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    assert run(tmp_path / "run").final_weights_sha256 == straight.final_weights_sha256
    events = EventReader(tmp_path / "run" / "events.jsonl").new()
    assert [event["site"] for event in events if event["event"] == Event.REPLY_DAMAGED] == ["north"]


def test_a_reply_to_other_weights_is_not_used(tmp_path: Path) -> None:
    """A kept reply counts for the question it answers, not for its place on the disk."""

    with pytest.raises(Killed):
        run(tmp_path / "run", {"west": dies_last(tmp_path / "run")})
    description = tmp_path / "run" / "spool" / "round-0001" / "north.json"
    content = json.loads(description.read_text())
    content["asked"]["incoming_sha256"] = "0" * 64
    from server.spool import _sha256_of

    content.pop("sha256")
    description.write_text(json.dumps({**content, "sha256": _sha256_of(content)}))
    asked: list[str] = []

    def counting(site: ScriptedSite, message: Message) -> Message:
        asked.append(site.name)
        return honest(site, message)

    run(tmp_path / "run", dict.fromkeys(SIZES, counting), STUDY)
    assert asked[:2] == ["north", "west"]


@pytest.mark.parametrize("damage", ["tensors", "description", "missing tensors"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, straight: StudyResult, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("server.rounds._StudyRun._closing_evaluation", _dies)
        with pytest.raises(Killed):
            run(tmp_path / "run")
    newest = saved_states(tmp_path / "run" / "checkpoints", "round-")[-1]
    [tensors] = newest.glob("*.safetensors")
    if damage == "missing tensors":
        tensors.unlink()
    else:
        victim = tensors if damage == "tensors" else newest / "state.json"
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 4
        victim.write_bytes(content)
    result = run(tmp_path / "run")
    assert result.final_weights_sha256 == straight.final_weights_sha256
    assert result.outcome == "complete"
    events = EventReader(tmp_path / "run" / "events.jsonl").new()
    assert [e["checkpoint"] for e in events if e["event"] == Event.CHECKPOINT_DAMAGED] == ["round-0003"]
    assert [e["round"] for e in events if e["event"] == Event.RESUMED] == [2]


def _dies(*_: Any) -> None:
    raise Killed


def test_where_all_are_damaged_the_run_says_so(tmp_path: Path) -> None:
    run(tmp_path / "run")
    for state in saved_states(tmp_path / "run" / "checkpoints", "round-"):
        (state / "state.json").write_text("{}")
    with pytest.raises(SemcError) as caught:
        run(tmp_path / "run")
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID
    assert "round-0003" in caught.value.problem


def test_a_checkpoint_of_another_study_is_refused_with_the_difference(tmp_path: Path) -> None:
    run(tmp_path / "run")
    with pytest.raises(SemcError) as caught:
        run(tmp_path / "run", study=tiny_study(rounds=5, algorithm="fedadam"))
    assert caught.value.code is ExitCode.STUDY_MISMATCH
    assert "federation.rounds: 3 before, 5 now" in caught.value.problem


def test_a_checkpoint_of_another_network_is_refused_with_the_difference(tmp_path: Path) -> None:
    import torch

    from server.global_model import GlobalModel

    run(tmp_path / "run")
    model = tiny_model()
    wider = {**model.tensors, "fc.bias": torch.zeros(5)}
    shapes = {name: tuple(tensor.shape) for name, tensor in wider.items()}
    other = GlobalModel(wider, shapes, shapes, model.schema, model.batch_norm)
    grid = ScriptedGrid([ScriptedSite(name) for name in SIZES])
    with pytest.raises(SemcError) as caught:
        run_study(grid, STUDY, registry_of(SIZES), RunFolder(tmp_path / "run"), model=other, pace=FAST)
    assert caught.value.code is ExitCode.STUDY_MISMATCH
    assert "fc.bias: [2] before, [5] now" in caught.value.problem


def test_a_study_below_its_quorum_goes_on_once_the_site_is_back(
    tmp_path: Path, straight: StudyResult
) -> None:
    def ill(site: ScriptedSite, message: Message) -> Message | None:
        return honest(site, message) if message.metadata.group_id == "1" else None

    study = tiny_study(rounds=3, algorithm="fedadam", deadline_seconds=0.2)
    reference = run(tmp_path / "reference", study=study)
    with pytest.raises(SemcError) as caught:
        run(tmp_path / "run", {"west": ill}, study)
    assert caught.value.code is ExitCode.QUORUM_LOST
    assert RunFolder(tmp_path / "run").result().outcome == "quorum_lost"
    result = run(tmp_path / "run", study=study)
    assert result.outcome == "complete"
    assert result.final_weights_sha256 == reference.final_weights_sha256


def test_a_subset_before_the_interruption_is_a_subset_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent_in_round_one(site: ScriptedSite, message: Message) -> Message | None:
        return honest(site, message) if message.metadata.group_id != "1" else None

    study = tiny_study(rounds=3, quorum=2, deadline_seconds=0.3)
    with monkeypatch.context() as patched:
        patched.setattr("server.rounds._StudyRun._closing_evaluation", _dies)
        with pytest.raises(Killed):
            run(tmp_path / "run", {"west": absent_in_round_one}, study)
    result = run(tmp_path / "run", study=study)
    assert result.outcome == "complete_on_subset"
    assert result.exit_code() is ExitCode.COMPLETE_ON_SUBSET


def test_a_resumed_round_does_not_wait_for_sites_that_are_busy_with_it(tmp_path: Path) -> None:
    """A site answers no handshake while it trains: a round may be longer than any wait to join.

    The control is the first start: there nobody is busy, and who does not answer is not there.
    """
    study = tiny_study(rounds=2, join_timeout_seconds=0.1, deadline_seconds=30.0)
    with pytest.raises(Killed):
        run(tmp_path / "run", {"west": dies_last(tmp_path / "run")}, study)
    busy_until = time.monotonic() + 1.0

    def busy(site: ScriptedSite, message: Message) -> Message | None:
        return honest(site, message) if time.monotonic() > busy_until else None

    def grid() -> ScriptedGrid:
        steps = enumerate(SIZES, start=1)
        return ScriptedGrid([ScriptedSite(name, step=float(step), hello=busy) for step, name in steps])

    resumed = run_study(
        grid(), study, registry_of(SIZES), RunFolder(tmp_path / "run"), model=tiny_model(), pace=FAST
    )
    assert resumed.outcome == "complete"
    busy_until = time.monotonic() + 1.0
    (tmp_path / "fresh").mkdir()
    with pytest.raises(SemcError) as caught:
        run_study(
            grid(), study, registry_of(SIZES), RunFolder(tmp_path / "fresh"), model=tiny_model(), pace=FAST
        )
    assert caught.value.code is ExitCode.QUORUM_LOST


def test_a_resumed_round_teaches_no_deadline(tmp_path: Path) -> None:
    """What answers within a second after a resume may have trained for an hour before."""
    with pytest.raises(Killed):
        run(tmp_path / "run", {"west": dies_last(tmp_path / "run")})
    first, second, *_ = run(tmp_path / "run").signed_receipts
    assert {site: entry.seconds is None for site, entry in first.sites.items()} == {
        "north": False,  # kept by the process that had sent it
        "south": False,
        "west": True,
    }
    assert all(entry.seconds is not None for entry in second.sites.values())


def test_a_busy_site_whose_handshake_expires_is_still_waited_for_once_the_quorum_is_met(
    tmp_path: Path,
) -> None:
    """Its unanswered handshake ends with an error of Flower's; greeted again, it counts as there."""
    registry = Registry(
        {name: Enrolment(public_key=name, num_examples=size, node_id=1) for name, size in SIZES.items()}
    )
    study = tiny_study(rounds=2, quorum=2, join_timeout_seconds=0.2, deadline_seconds=30.0)

    def run_with(hello: Any, answers: dict[str, Any]) -> StudyResult:
        (tmp_path / "run").mkdir(exist_ok=True)
        sites = [
            ScriptedSite(
                name,
                step=float(step),
                public_key=name.encode(),
                answer=answers.get(name),
                hello=hello.get(name),
            )
            for step, name in enumerate(SIZES, start=1)
        ]
        pace = replace(FAST, roster=0.01, offline_grace=0.1)
        return run_study(
            ScriptedGrid(sites), study, registry, RunFolder(tmp_path / "run"), model=tiny_model(), pace=pace
        )

    with pytest.raises(Killed):
        run_with({}, {"west": dies_last(tmp_path / "run")})
    busy_until = time.monotonic() + 1.5
    first_asked: dict[str, float] = {}

    def busy(site: ScriptedSite, message: Message) -> Message | None:
        if time.monotonic() > busy_until:
            return honest(site, message)
        asked = first_asked.setdefault(message.metadata.message_id, time.monotonic())
        return error_reply(message, 4) if time.monotonic() - asked > 0.2 else None  # expired

    assert run_with({"west": busy}, {}).outcome == "complete"
