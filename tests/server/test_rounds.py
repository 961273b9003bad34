"""The round loop over scripted sites: the good way, and every way a site can fail."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message, MetricRecord, RecordDict

from semc import protocol
from semc.checkpoint import load_state, saved_states
from semc.config import StudyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.reporting import StudyResult
from semc.wire import pack
from server.events import EventReader
from server.pace import Pace
from server.pulls import Pulls
from server.receipts import Reason
from server.rounds import run_study
from server.run_folder import RunFolder
from tests.server.federation import (
    FAST,
    ScriptedGrid,
    ScriptedSite,
    array_record,
    error_reply,
    hello_record,
    honest,
    metrics_of,
    received_tensors,
    registry_of,
    tiny_model,
    tiny_study,
    training_record,
)

SIZES = {"north": 10, "south": 20, "west": 70}


def _sites(**scripts: Any) -> list[ScriptedSite]:
    """Return three honest sites that add 1, 2 and 3; keywords replace one site's answer."""
    return [
        ScriptedSite(name, step=float(step), answer=scripts.get(name))
        for step, name in enumerate(SIZES, start=1)
    ]


def _run(
    folder: Path, sites: list[ScriptedSite], study: StudyConfig | None = None, pace: Pace = FAST
) -> tuple[StudyResult, ScriptedGrid]:
    grid = ScriptedGrid(sites)
    study = study or tiny_study()
    folder.mkdir(exist_ok=True)
    result = run_study(grid, study, registry_of(SIZES), RunFolder(folder), model=tiny_model(), pace=pace)
    return result, grid


def _events(folder: Path) -> list[dict[str, Any]]:
    return [dict(event) for event in EventReader(RunFolder(folder).events_file).new()]


def final_model(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of the newest checkpoint."""
    tensors, _ = load_state(saved_states(RunFolder(folder).checkpoints, "round-")[-1])
    return {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}


def test_two_rounds_give_the_weighted_mean_by_hand(tmp_path: Path) -> None:
    result, _grid = _run(tmp_path, _sites())
    # Each round adds (10*1 + 20*2 + 70*3) / 100 = 2.6 to every element.
    for name, tensor in final_model(tmp_path).items():
        torch.testing.assert_close(tensor, tiny_model().tensors[name] + 5.2)
    assert result.outcome == "complete"
    assert result.exit_code() is ExitCode.OK
    assert [entry.receipts for entry in result.rounds] == [dict.fromkeys(sorted(SIZES), "in")] * 2
    assert result.rounds[0].train_loss == dict.fromkeys(sorted(SIZES), 1.0)
    assert RunFolder(tmp_path).result() == result


def test_weights_come_from_the_enrolment_not_from_the_reply(tmp_path: Path) -> None:
    def boastful(site: ScriptedSite, message: Message) -> Message:
        content = training_record(site, message)
        content[protocol.METRICS] = MetricRecord({protocol.NUM_EXAMPLES: 10**12})
        return Message(content, reply_to=message)

    _run(tmp_path, _sites(north=boastful), tiny_study(rounds=1))
    torch.testing.assert_close(final_model(tmp_path)["fc.bias"], tiny_model().tensors["fc.bias"] + 2.6)


def test_counts_are_filed_under_the_round_that_made_the_weights(tmp_path: Path) -> None:
    result, _ = _run(tmp_path, _sites())
    # Scripted sites answer round r with r correct images per class: of the weights of round r - 1.
    assert result.rounds[0].validation["north"] == [2, 0, 0, 2]
    assert result.rounds[1].validation["north"] == [3, 0, 0, 3]
    assert {site.site: site.test_confusion for site in result.sites} == {key: [3, 1, 1, 3] for key in SIZES}
    assert {site.site: site.num_train_examples for site in result.sites} == SIZES
    evaluated = [event for event in _events(tmp_path) if event["event"] == "evaluated"]
    assert [(event["round"], event["mean_macro_f1"]) for event in evaluated] == [(1, 1.0), (2, 1.0)]


def test_messages_say_study_digest_round_and_deadline(tmp_path: Path) -> None:
    study = tiny_study()
    _, grid = _run(tmp_path, _sites(), study)
    received = grid.sites[2].received
    assert [message.metadata.message_type for message in received] == ["query", "train", "train", "evaluate"]
    assert [message.metadata.group_id for message in received] == ["0", "1", "2", "3"]
    for number, message in enumerate(received):
        config = message.content[protocol.CONFIG]
        assert config[protocol.SERVER_ROUND] == number
        assert config[protocol.STUDY_DIGEST] == study.digest()
        # An answer that came in time may be fetched a little after the deadline.
        assert 0 < message.metadata.ttl <= (2.0 if number == 0 else 5.0 + 300.0)
    assert len(grid.pushes) == 3 + 3, "one push per round carries all sites' messages"


def test_final_evaluation_sends_the_model_of_the_last_checkpoint(tmp_path: Path) -> None:
    _, grid = _run(tmp_path, _sites())
    sent = received_tensors(grid.sites[2].received[-1])
    saved = final_model(tmp_path)
    assert all(torch.equal(sent[name], saved[name]) for name in saved)


def test_one_message_number_per_pull(tmp_path: Path) -> None:
    _, grid = _run(tmp_path, _sites())
    assert {len(asked) for asked in grid.pulled} == {1}


def test_checkpoint_is_complete_before_the_next_round_is_sent(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def looking(site: ScriptedSite, message: Message) -> Message:
        seen.append([path.name for path in saved_states(RunFolder(tmp_path).checkpoints, "round-")])
        return honest(site, message)

    study = tiny_study(rounds=4, algorithm="fedadam")
    _run(tmp_path, _sites(north=looking), study)
    assert seen[:4] == [
        ["round-0000"],
        ["round-0000", "round-0001"],
        ["round-0000", "round-0001", "round-0002"],
        ["round-0001", "round-0002", "round-0003"],
    ]
    tensors, metadata = load_state(RunFolder(tmp_path).checkpoints / "round-0004")
    assert metadata["round"] == 4
    assert metadata["digest"] == study.digest()
    assert [entry["receipts"]["north"] for entry in metadata["history"]["rounds"]] == ["in"] * 4
    assert int(tensors["optimizer/step"]) == 4
    assert {name for name in tensors if name.startswith("optimizer/first/")} == {
        "optimizer/first/conv.weight",
        "optimizer/first/fc.bias",
    }


def test_spool_is_empty_at_the_end(tmp_path: Path) -> None:
    _run(tmp_path, _sites())
    assert not RunFolder(tmp_path).spool.exists()


def test_one_seed_gives_the_same_fingerprint(tmp_path: Path) -> None:
    first, _ = _run(tmp_path / "a", _sites())
    second, _ = _run(tmp_path / "b", list(reversed(_sites())))
    other, _ = _run(tmp_path / "c", _sites(), tiny_study(rounds=1))
    assert first.final_weights_sha256 == second.final_weights_sha256 != other.final_weights_sha256


# --- a site fails -----------------------------------------------------------------------------------------


def _silent(site: ScriptedSite, message: Message) -> None:
    return None


def _with_payload(data: bytes, stype: str = protocol.TENSOR_STYPE) -> Any:
    def answer(site: ScriptedSite, message: Message) -> Message:
        content = RecordDict(
            {protocol.ARRAYS: array_record(data, stype), protocol.METRICS: metrics_of(site, message)}
        )
        return Message(content, reply_to=message)

    return answer


def _with_metrics(**changes: Any) -> Any:
    def answer(site: ScriptedSite, message: Message) -> Message:
        content = training_record(site, message)
        values = {**metrics_of(site, message), **{key.replace("_", "-"): v for key, v in changes.items()}}
        content[protocol.METRICS] = MetricRecord(values)
        return Message(content, reply_to=message)

    return answer


def _tensors(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    tensors = {**tiny_model().tensors, **{key.replace("_", "."): value for key, value in changes.items()}}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def _from_elsewhere(site: ScriptedSite, message: Message) -> Message:
    reply = honest(site, message)
    reply.metadata.__dict__["_src_node_id"] = 999
    return reply


def _to_another_message(site: ScriptedSite, message: Message) -> Message:
    reply = honest(site, message)
    reply.metadata.__dict__["_reply_to_message_id"] = "another"
    return reply


def _extra_record(site: ScriptedSite, message: Message) -> Message:
    content = training_record(site, message)
    content["queue"] = MetricRecord({"rows": 3})
    return Message(content, reply_to=message)


NAN = pack({**tiny_model().tensors, "fc.bias": torch.tensor([7.5, 7.5])}, "fp32").replace(
    torch.tensor([7.5]).numpy().tobytes(), torch.tensor([float("nan")]).numpy().tobytes()
)

REFUSED = {
    "truncated": (_with_payload(pack(_tensors(), "fp32")[:-1]), Reason.TENSORS),
    "not safetensors": (_with_payload(b"\x93NUMPY not a tensor file"), Reason.TENSORS),
    "nan": (_with_payload(NAN), Reason.TENSORS),
    "another shape": (_with_payload(pack(_tensors(fc_bias=torch.ones(3)), "fp32")), Reason.TENSORS),
    "missing tensor": (_with_payload(pack(_tensors(fc_bias=None), "fp32")), Reason.TENSORS),
    "extra tensor": (_with_payload(pack(_tensors(queue=torch.ones(2)), "fp32")), Reason.TENSORS),
    "another dtype": (_with_payload(pack(_tensors(), "bf16")), Reason.TENSORS),
    "another stype": (_with_payload(pack(_tensors(), "fp32"), "numpy.ndarray"), Reason.TENSORS),
    "unknown metric": (_with_metrics(patient_age=61), Reason.METRICS),
    "nan loss": (_with_metrics(train_loss=float("nan")), Reason.METRICS),
    "negative count": (_with_metrics(num_examples=-69), Reason.METRICS),
    "float count": (_with_metrics(num_examples=1.5), Reason.METRICS),
    "short confusion": (_with_metrics(test_confusion=[1, 2, 3]), Reason.METRICS),
    "negative confusion": (_with_metrics(test_confusion=[1, 2, 3, -4]), Reason.METRICS),
    "long expert list": (_with_metrics(expert_use=[0.1] * 1000), Reason.METRICS),
    "scalar confusion": (_with_metrics(test_confusion=4), Reason.METRICS),
    "extra record": (_extra_record, Reason.RECORDS),
    "no tensors": (
        lambda site, message: Message(
            RecordDict({protocol.METRICS: metrics_of(site, message)}), reply_to=message
        ),
        Reason.RECORDS,
    ),
    "another sender": (_from_elsewhere, Reason.SENDER),
    "another message": (_to_another_message, Reason.SENDER),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_site_may_not_send_is_refused_and_does_not_count(tmp_path: Path, kind: str) -> None:
    script, reason = REFUSED[kind]

    def answer(site: ScriptedSite, message: Message) -> Message:
        return (script if message.metadata.message_type == "train" else honest)(site, message)

    result, _ = _run(tmp_path, _sites(west=answer), tiny_study(rounds=1, quorum=2))
    assert result.rounds[0].receipts == {"north": "in", "south": "in", "west": "refused"}
    assert result.rounds[0].reasons == {"west": reason}
    assert result.outcome == "complete_on_subset"
    assert result.exit_code() is ExitCode.COMPLETE_ON_SUBSET
    # (10*1 + 20*2) / 30: west's 3 had no influence.
    torch.testing.assert_close(final_model(tmp_path)["fc.bias"], tiny_model().tensors["fc.bias"] + 50 / 30)


@pytest.mark.parametrize(
    ("code", "text", "state", "reason"),
    [
        (2, "E_DATA", "declined", "E_DATA"),
        (2, "FileNotFoundError: /data/patients/mueller.png", "failed", "E_INTERNAL"),
        (3, "", "dropped", "D_UPLOAD"),
        (4, "", "dropped", "D_EXPIRED"),
        (5, "", "dropped", "D_OFFLINE"),
        (7, "", "declined", "E_STUDY"),
        (8, "", "dropped", "D_PROGRAM_LOST"),
        (0, "", "failed", "E_INTERNAL"),
    ],
)
def test_error_replies_become_receipts(tmp_path: Path, code: int, text: str, state: str, reason: str) -> None:
    def answer(site: ScriptedSite, message: Message) -> Message:
        return error_reply(message, code, text) if site.name == "west" else honest(site, message)

    result, _ = _run(tmp_path, _sites(west=answer), tiny_study(rounds=1, quorum=2))
    assert (result.rounds[0].receipts["west"], result.rounds[0].reasons["west"]) == (state, reason)
    assert "mueller" not in RunFolder(tmp_path).events_file.read_text() + result.model_dump_json()


def test_late_site_is_left_behind_at_the_deadline(tmp_path: Path) -> None:
    study = tiny_study(rounds=1, quorum=2, deadline_seconds=0.3)
    start = time.monotonic()
    result, _ = _run(tmp_path, _sites(south=_silent), study)
    assert result.rounds[0].receipts["south"] == "late"
    assert result.rounds[0].reasons == {"south": "L_DEADLINE"}
    assert 0.6 <= time.monotonic() - start < 3.0, "one deadline for the round, one for the evaluation"


def test_below_quorum_the_study_stops_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    def once(site: ScriptedSite, message: Message) -> Message | None:
        return honest(site, message) if message.metadata.group_id == "1" else None

    study = tiny_study(rounds=3, deadline_seconds=0.2)
    with pytest.raises(SemcError) as caught:
        _run(tmp_path, _sites(west=once), study)
    assert caught.value.code is ExitCode.QUORUM_LOST
    assert (
        "Round 2 ended with 2 of the 3 sites needed: west late at train (L_DEADLINE)." in caught.value.problem
    )
    result = RunFolder(tmp_path).result()
    assert result.outcome == "quorum_lost"
    assert [entry.receipts["west"] for entry in result.rounds] == ["in", "late"]
    assert load_state(RunFolder(tmp_path).checkpoints / "round-0001")[1]["round"] == 1
    assert not (RunFolder(tmp_path).checkpoints / "round-0002").exists()


def test_offline_site_is_never_asked_and_counts_when_it_returns(tmp_path: Path) -> None:
    left: list[float] = []

    def online() -> bool:
        return not left or time.monotonic() > left[0] + 0.4

    def answer(site: ScriptedSite, message: Message) -> Message | None:
        if not left:  # the connection breaks while it trains
            left.append(time.monotonic())
            return None
        return honest(site, message)

    sites = _sites(west=answer)
    sites[2].online = online
    result, grid = _run(
        tmp_path,
        sites,
        tiny_study(rounds=1),
        pace=replace(FAST, roster=0.0, offline_grace=30.0),
    )
    assert result.outcome == "complete"
    assert grid.pulled_while_offline == 0
    assert result.rounds[0].seconds > 0.2


def test_site_gone_for_good_is_given_up_after_the_grace_once_the_quorum_is_met(tmp_path: Path) -> None:
    asked: list[Message] = []

    def leaves(site: ScriptedSite, message: Message) -> None:
        asked.append(message)

    sites = _sites(west=leaves)
    sites[2].online = lambda: not asked  # gone with the first round in hand
    pace = replace(FAST, roster=0.0)  # looks before every pull, however slow the machine
    result, grid = _run(tmp_path, sites, tiny_study(quorum=2, deadline_seconds=60.0), pace=pace)
    assert [entry.reasons["west"] for entry in result.rounds] == ["D_OFFLINE", "D_ABSENT"]
    assert grid.pulled_while_offline == 0
    assert result.seconds < 20


def test_site_that_cannot_be_sent_to_is_dropped(tmp_path: Path) -> None:
    class Refusing(ScriptedGrid):
        def push_messages(self, messages: Any) -> list[str]:
            batch = list(messages)
            identifiers = list(super().push_messages(batch))
            return [
                "" if message.metadata.message_type != "query" and message.metadata.dst_node_id == 4 else name
                for message, name in zip(batch, identifiers, strict=True)
            ]

    grid = Refusing(_sites())
    study = tiny_study(rounds=1, quorum=2)
    result = run_study(grid, study, registry_of(SIZES), RunFolder(tmp_path), model=tiny_model(), pace=FAST)
    assert result.rounds[0].reasons == {"west": "D_NOT_SENT"}


def test_diverged_server_optimiser_is_named(tmp_path: Path) -> None:
    sites = [ScriptedSite(name, step=3e38) for name in SIZES]
    study = tiny_study(rounds=3, algorithm="fedavgm", server_learning_rate=10.0)
    with pytest.raises(SemcError) as caught:
        _run(tmp_path, sites, study)
    assert caught.value.code is ExitCode.RUN_FAILED
    assert "not finite" in caught.value.problem
    assert RunFolder(tmp_path).result().outcome == "failed"


# --- the handshake ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (hello_record("west", **{protocol.SHARED_SCHEMA: "0" * 64}), "R_SCHEMA"),
        (hello_record("west", **{protocol.FLOWER_INSTALLED: "1.42.0"}), "R_VERSION"),
        (hello_record("west", **{protocol.SOFTWARE_VERSION: "0.0.9"}), "R_VERSION"),
        (hello_record("east"), "R_NAME"),
        (hello_record("north"), "R_NAME"),
        (RecordDict(), "R_RECORDS"),
    ],
)
def test_mismatch_shows_before_anyone_trains(tmp_path: Path, record: RecordDict, reason: str) -> None:
    sites = _sites()
    sites[2].hello = lambda site, message: Message(record, reply_to=message)
    with pytest.raises(SemcError) as caught:
        _run(tmp_path, sites)
    assert caught.value.code is ExitCode.QUORUM_LOST
    assert reason in caught.value.problem
    assert all(m.metadata.message_type == "query" for site in sites for m in site.received)
    assert RunFolder(tmp_path).result().outcome == "quorum_lost"


def test_declining_site_is_named_with_its_code_and_others_go_on(tmp_path: Path) -> None:
    sites = _sites()
    sites[2].hello = lambda site, message: error_reply(message, 2, "E_MODEL")
    result, _ = _run(tmp_path, sites, tiny_study(quorum=2))
    assert [entry.receipts["west"] for entry in result.rounds] == ["declined", "declined"]
    assert [entry.reasons["west"] for entry in result.rounds] == ["E_MODEL", "E_MODEL"]
    assert len([m for m in sites[2].received if m.metadata.message_type != "query"]) == 0


def test_site_that_mends_itself_joins_the_next_round(tmp_path: Path) -> None:
    def hello(site: ScriptedSite, message: Message) -> Message:
        asked = sum(m.metadata.message_type == "query" for m in site.received)
        return error_reply(message, 2, "E_DATA") if asked < 3 else honest(site, message)

    sites = _sites()
    sites[2].hello = hello
    result, _ = _run(tmp_path, sites, tiny_study(quorum=2))
    assert [entry.receipts["west"] for entry in result.rounds] == ["declined", "in"]


def test_join_ends_with_the_missing_sites_named(tmp_path: Path) -> None:
    sites = _sites()
    sites[1].online = lambda: False
    with pytest.raises(SemcError) as caught:
        _run(tmp_path, sites, tiny_study(join_timeout_seconds=0.2))
    assert "2 of the 3 sites needed joined: " in caught.value.problem
    assert "south dropped at join (D_ABSENT)" in caught.value.problem


def test_deployed_node_is_known_by_its_key(tmp_path: Path) -> None:
    from server.registry import Enrolment, Registry

    registry = Registry({n: Enrolment(public_key=f"key of {n}", num_examples=5, node_id=1) for n in SIZES})
    sites = _sites()
    for site in sites:
        site.public_key = f"key of {site.name}".encode()
    liar = ScriptedSite("north", public_key=b"key of south")  # south's key, north's name
    stranger = ScriptedSite("west", public_key=b"a key nobody enrolled")
    grid = ScriptedGrid([sites[0], liar, sites[2], stranger])
    result = run_study(
        grid,
        tiny_study(quorum=2),
        registry,
        RunFolder(tmp_path),
        model=tiny_model(),
        pace=FAST,
    )
    assert stranger.received == [], "nothing is sent to a node that is not of the study"
    assert [entry.reasons for entry in result.rounds] == [{"south": "R_NAME"}] * 2


def test_missing_enrolment_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    grid = ScriptedGrid(_sites())
    with pytest.raises(SemcError) as caught:
        run_study(
            grid,
            tiny_study(),
            registry_of({"north": 1, "south": 2}),
            RunFolder(tmp_path),
            model=tiny_model(),
            pace=FAST,
        )
    assert caught.value.code is ExitCode.KEY_UNREGISTERED
    assert "west" in caught.value.problem
    assert grid.pushes == []


def test_events_tell_the_whole_story_in_order(tmp_path: Path) -> None:
    _run(tmp_path, _sites(), tiny_study(rounds=1))
    events = _events(tmp_path)
    assert [event["event"] for event in events] == [
        "started",
        *["joined"] * 3,
        "round",
        *["reply"] * 3,
        "aggregated",
        "closing",
        *["reply"] * 3,
        "evaluated",
        "finished",
    ]
    assert json.loads(json.dumps(events[-1]))["outcome"] == "complete"


# --- a message is lost ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "retries", "state"), [(1, 2, "in"), (2, 2, "in"), (3, 2, "dropped"), (1, 0, "dropped")]
)
def test_a_lost_answer_is_asked_for_again_as_often_as_the_study_says(
    tmp_path: Path, losses: int, retries: int, state: str
) -> None:
    lost: list[Message] = []

    def losing(site: ScriptedSite, message: Message) -> Message:
        if len(lost) < losses:
            lost.append(message)
            return error_reply(message, 8)  # its training process died
        return honest(site, message)

    result, grid = _run(tmp_path, _sites(west=losing), tiny_study(rounds=1, quorum=2, retries=retries))
    assert result.rounds[0].receipts["west"] == state
    entry = result.signed_receipts[0].sites["west"]
    assert entry.attempts == min(losses, retries) + 1
    assert (entry.stage, entry.reason) == (("", "") if state == "in" else ("train", "D_PROGRAM_LOST"))
    repeats = [event for event in _events(tmp_path) if event["event"] == "repeat"]
    assert [event["site"] for event in repeats] == ["west"] * min(losses, retries)
    assert (
        sum(message.metadata.message_type == "train" for message in grid.sites[4].received) == entry.attempts
    )


@pytest.mark.parametrize("code", ["E_DIVERGED", "E_POLICY", "E_DATA", "E_BUDGET"])
def test_a_site_that_means_it_is_not_asked_again(tmp_path: Path, code: str) -> None:
    def declining(site: ScriptedSite, message: Message) -> Message:
        return error_reply(message, 2, code)

    result, _ = _run(tmp_path, _sites(west=declining), tiny_study(rounds=1, quorum=2, retries=5))
    assert result.signed_receipts[0].sites["west"].attempts == 1


def test_a_node_that_was_started_anew_is_sent_its_message_again_at_once(tmp_path: Path) -> None:
    """A SuperNode that restarts has forgotten what it had in hand; Flower never hands that out a second time."""
    forgotten: list[str] = []

    def answer(site: ScriptedSite, message: Message) -> Message | None:
        if not forgotten or message.metadata.message_id in forgotten:
            forgotten.append(message.metadata.message_id)
            site.activation = "second start"
            return None
        return honest(site, message)

    for restarts, state in ((True, "in"), (False, "late")):
        forgotten.clear()
        sites = _sites(west=answer)
        if not restarts:  # the control: the same silence without a new start
            sites[2] = ScriptedSite("west", step=3.0, answer=_silent)
        study = tiny_study(rounds=1, quorum=2, retries=0, deadline_seconds=2.0)
        result, _ = _run(tmp_path / str(restarts), sites, study)
        assert result.rounds[0].receipts["west"] == state
        assert result.signed_receipts[0].sites["west"].attempts == 1 + restarts


def test_a_site_that_joins_late_and_one_that_leaves_and_returns(tmp_path: Path) -> None:
    """West comes in round 3; south is away in rounds 3 and 4 and back in round 5."""
    now = [0]

    def noting(site: ScriptedSite, message: Message) -> Message:
        now[0] = max(now[0], int(message.metadata.group_id))
        return honest(site, message)

    sites = _sites(north=noting)
    sites[1].online = lambda: not 2 <= now[0] <= 3
    sites[2].online = lambda: now[0] >= 2
    study = tiny_study(rounds=6, quorum=1, deadline_seconds=1.5, join_timeout_seconds=0.3)
    result, _ = _run(tmp_path, sites, study, pace=replace(FAST, roster=0.0))
    states = {name: [entry.receipts[name] for entry in result.rounds] for name in SIZES}
    assert states["north"] == ["in"] * 6
    assert states["west"][0] == "dropped"
    assert states["west"][3:] == ["in"] * 3
    assert states["south"][0] == "in"
    assert "dropped" in states["south"][1:4]
    assert states["south"][-1] == "in"
    assert result.outcome == "complete_on_subset"


@pytest.mark.parametrize("slow", [{"north"}, {"north", "south"}])
def test_slow_uploads_hold_up_no_other_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: set[str]
) -> None:
    """Flower's pull blocks until a reply has arrived; the other sites are served meanwhile."""
    monkeypatch.setattr("server.pulls.LASTING_SECONDS", 0.3)
    arrived = threading.Event()

    class SlowLink(ScriptedGrid):
        def pull_messages(self, message_ids: Any) -> Any:
            [asked] = message_ids
            message = self.pending[asked]
            name = self.sites[message.metadata.dst_node_id].name
            if message.metadata.message_type == "train" and name in slow:
                arrived.wait(30)
            return super().pull_messages([asked])

    study = tiny_study(rounds=1, quorum=1, deadline_seconds=1.5)
    try:
        result = run_study(
            SlowLink(_sites()), study, registry_of(SIZES), RunFolder(tmp_path), model=tiny_model(), pace=FAST
        )
    finally:
        arrived.set()
    entries = result.signed_receipts[0].sites
    for name, entry in entries.items():
        found = (entry.state, entry.stage)
        assert found == (("late", "upload") if name in slow else ("in", "")), name
        assert name in slow or (entry.seconds or 9) < 1.5


def test_an_earlier_question_that_is_answered_after_all_counts(tmp_path: Path) -> None:
    """A line that was cut for more than a minute looks to Flower like a new start; the first answer is as good."""
    asked: list[str] = []

    def answer(site: ScriptedSite, message: Message) -> Message | None:
        if message.metadata.message_id not in asked:
            asked.append(message.metadata.message_id)
            site.activation = "after the cut"
        answered_first = len(asked) == 2 and message.metadata.message_id == asked[0]
        return honest(site, message) if answered_first or message.metadata.message_type != "train" else None

    result, _ = _run(tmp_path, _sites(west=answer), tiny_study(rounds=1))
    assert result.outcome == "complete"
    assert result.signed_receipts[0].sites["west"].attempts == 2


def test_a_private_site_that_keeps_dying_is_not_asked_for_ever(tmp_path: Path) -> None:
    """Under patient_dp every new start may cost the patients' budget: starts count as retries."""
    from tests.server.private_federation import TRAINED, private, private_study

    starts = [0]

    def dying(site: ScriptedSite, message: Message) -> Message | None:
        if message.metadata.message_type != "train":
            return private(site, message)
        starts[0] += 1
        site.activation = f"start {starts[0]}"
        return None

    sites = [
        ScriptedSite("north", answer=private),
        ScriptedSite("south", answer=private),
        ScriptedSite("west", answer=dying),
    ]
    study = private_study(rounds=1, quorum=2, retries=2, deadline_seconds=1.5)
    result = run_study(
        ScriptedGrid(sites),
        study,
        registry_of(SIZES),
        RunFolder(tmp_path),
        model=tiny_model([TRAINED]),
        pace=FAST,
    )
    entry = result.signed_receipts[0].sites["west"]
    assert (entry.state, entry.reason, entry.attempts) == ("dropped", "D_CAME_BACK", 3)


def test_what_a_site_kept_answering_stands_in_its_receipt(tmp_path: Path) -> None:
    def full(site: ScriptedSite, message: Message) -> Message:
        return error_reply(message, 2, "E_DISK")

    pace = replace(FAST, retry=60.0)  # the deadline comes before the second question
    study = tiny_study(rounds=1, quorum=2, deadline_seconds=0.5)
    result, _ = _run(tmp_path, _sites(west=full), study, pace=pace)
    entry = result.signed_receipts[0].sites["west"]
    assert (entry.state, entry.stage, entry.reason) == ("failed", "train", "E_DISK")


def test_a_reply_that_flower_cannot_read_ends_no_study(tmp_path: Path) -> None:
    def broken(site: ScriptedSite, message: Message) -> Message:
        raise ValueError("cannot be inflated")

    result, _ = _run(tmp_path, _sites(west=broken), tiny_study(rounds=1, quorum=2))
    entry = result.signed_receipts[0].sites["west"]
    assert (entry.state, entry.stage, entry.reason) == ("refused", "check", "R_RECORDS")
    assert result.outcome == "complete_on_subset"


def test_an_error_of_the_newest_question_counts_although_an_older_one_is_open(tmp_path: Path) -> None:
    """A node restarts, forgets the first message for good, and fails at the second: it is asked a third time."""
    asked: list[str] = []

    def answer(site: ScriptedSite, message: Message) -> Message | None:
        if message.metadata.message_type != "train":
            return honest(site, message)
        number = message.metadata.message_id
        if number not in asked:
            asked.append(number)
        if asked.index(number) == 0:
            site.activation = "second start"
            return None
        return error_reply(message, 8) if asked.index(number) == 1 else honest(site, message)

    result, _ = _run(tmp_path, _sites(west=answer), tiny_study(rounds=1, retries=2, deadline_seconds=10.0))
    assert result.outcome == "complete"
    assert result.signed_receipts[0].sites["west"].attempts == 3


def test_few_replies_are_in_memory_however_many_have_come() -> None:
    fetched: list[str] = []

    def pull(numbers: list[str]) -> list[Message]:
        fetched.extend(numbers)
        return []

    pulls = Pulls(pull, lambda _: True)
    for number in range(24):
        pulls.ask(f"m{number}")
    time.sleep(0.3)
    assert len(fetched) == 2, "the next are fetched once these have been looked at"
    looks = [pulls.next(5.0) for _ in range(24)]
    assert sorted(look.message_id for look in looks if look) == sorted(fetched)
    pulls.close()


def test_a_message_that_a_dying_superlink_had_in_hand_is_sent_again(tmp_path: Path) -> None:
    """It counts as handed over, and the site never got it; nothing about the site's node tells."""
    starts = ["first"]
    asked: list[str] = []

    def answer(site: ScriptedSite, message: Message) -> Message | None:
        if message.metadata.message_type == "train" and message.metadata.message_id not in asked:
            asked.append(message.metadata.message_id)
        if asked and message.metadata.message_id == asked[0]:
            starts[0] = "second"
            return None
        return honest(site, message)

    result = run_study(
        ScriptedGrid(_sites(west=answer)),
        tiny_study(rounds=1, deadline_seconds=5.0),
        registry_of(SIZES),
        RunFolder(tmp_path),
        model=tiny_model(),
        pace=FAST,
        transport=lambda: starts[0],
    )
    assert result.outcome == "complete"
    assert result.signed_receipts[0].sites["west"].attempts == 2


@pytest.mark.parametrize("first", [1, 3, 4])
def test_a_push_that_breaks_off_is_made_again(tmp_path: Path, first: int) -> None:
    """The SuperLink died in the middle of it: of a handshake, or of a round's message."""

    class Breaking(ScriptedGrid):
        count = 0

        def push_messages(self, messages: Any) -> Any:
            self.count += 1
            if self.count == first:
                raise RuntimeError("the push session is gone")
            return super().push_messages(messages)

    grid = Breaking(_sites())
    result = run_study(
        grid, tiny_study(rounds=2), registry_of(SIZES), RunFolder(tmp_path), model=tiny_model(), pace=FAST
    )
    assert result.outcome == "complete"
    attempts = {entry.attempts for entry in result.signed_receipts[0].sites.values()}
    assert attempts == ({2} if first == 4 else {1})
