"""Home, run folders, events, addresses and Flower's printed JSON."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from semc.exit_codes import ExitCode, SemcError
from semc.flower_version import check_flower_version
from server.control import last_json
from server.events import Event, EventLog, EventReader
from server.find_run import find_run
from server.health import Health
from server.home import Endpoint, Home
from server.listen import Listen
from server.registry import Registry
from server.run_folder import RunFolder
from server.status import read_status
from server.tls import ensure_certificates
from tests.server.federation import registry_of, tiny_study
from tests.server.private_federation import private_study


def test_run_name_is_a_name_and_never_a_path(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.run("tiny-0123456789ab-001") == RunFolder(tmp_path / "runs" / "tiny-0123456789ab-001")
    for name in ("../outside", "/etc", "a/b", "", ".", "A", "a" * 81, "a\n"):
        assert home.run(name) is None


def test_run_names_count_up_per_study(tmp_path: Path) -> None:
    home = Home(tmp_path)
    digest = "0123456789abcdef"
    assert home.new_run_name("tiny", digest) == "tiny-0123456789ab-001"
    (home.runs / "tiny-0123456789ab-001").mkdir(parents=True)
    (home.runs / "tiny-0123456789ab-009").mkdir()
    assert home.new_run_name("tiny", digest) == "tiny-0123456789ab-010"
    assert home.new_run_name("tiny", "f" * 64) == "tiny-ffffffffffff-001"


def test_endpoint_survives_the_disk_and_its_absence_is_told(tmp_path: Path) -> None:
    home, endpoint = Home(tmp_path), Endpoint("127.0.0.1:8000", "127.0.0.1:8001", 12)
    with pytest.raises(SemcError) as caught:
        home.endpoint()
    assert caught.value.code is ExitCode.SERVER_UNREACHABLE
    home.write_endpoint(endpoint)
    assert home.endpoint() == endpoint


def test_a_disk_that_fails_leaves_endpoint_and_enrolments_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, endpoint = Home(tmp_path), Endpoint("127.0.0.1:8000", "127.0.0.1:8001", 12)
    home.write_endpoint(endpoint)
    registry_of({"north": 1}).save(home.root)
    kept = sorted(path.name for path in home.root.iterdir())

    def failing(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)  # what is not synced before it is renamed is lost with the power
        with pytest.raises(OSError, match="Input"):
            home.write_endpoint(Endpoint("127.0.0.1:9", "127.0.0.1:10", 13))
        with pytest.raises(OSError, match="Input"):
            registry_of({"south": 2}).save(home.root)
    assert home.endpoint() == endpoint
    assert list(Registry.load(home.root).sites) == ["north"]
    assert sorted(path.name for path in home.root.iterdir()) == kept
    home.write_endpoint(Endpoint("127.0.0.1:9", "127.0.0.1:10", 13))
    assert home.endpoint().pid == 13, "the control: where the disk takes it, it is replaced"


def test_a_run_folder_that_was_not_finished_is_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, registry = Home(tmp_path), registry_of({"north": 1, "south": 2, "west": 3, "east": 4})
    left = 2  # of the registry: its content and its folder; the study's is the next

    def failing(_: int) -> None:
        nonlocal left
        if left == 0:
            raise OSError(errno.EIO, "Input/output error")
        left -= 1

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(SemcError) as caught:
            RunFolder(home.runs / "tiny-0123456789ab-001").create(tiny_study(), registry)
    assert caught.value.code is ExitCode.DISK
    assert home.latest_run() is None
    RunFolder(home.runs / "tiny-0123456789ab-002").create(tiny_study(), registry)
    found = home.latest_run()
    assert found is not None
    assert found.root.name.endswith("-002")


def test_lock_is_held_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with home.lock("lock", wait=False):
        with pytest.raises(SemcError) as caught, home.lock("lock", wait=False):
            pass
        assert caught.value.code is ExitCode.ALREADY_RUNNING
    with home.lock("lock", wait=False):
        pass


def test_run_folder_holds_study_and_only_its_sites(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "one")
    study = tiny_study()
    folder.create(study, registry_of({"north": 1, "south": 2, "west": 3, "east": 4}))
    assert folder.study().digest() == study.digest()
    assert folder.registry().sites.keys() == {"north", "south", "west"}
    with pytest.raises(SemcError) as caught:
        folder.create(study, registry_of({"north": 1, "south": 2, "west": 3}))
    assert caught.value.code is ExitCode.DISK


def test_missing_run_and_missing_result_are_told(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for name in (None, "absent-1", "../x"):
        with pytest.raises(SemcError) as caught:
            find_run(home, name)
        assert caught.value.code is ExitCode.CONFIG_NOT_FOUND
    (home.runs / "one").mkdir(parents=True)
    (home.runs / "one" / "study.yaml").write_text(tiny_study().to_yaml())
    with pytest.raises(SemcError) as caught:
        find_run(home, None).result()
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID


def test_a_damaged_result_is_shown_as_unreadable_and_hides_nothing_else(tmp_path: Path) -> None:
    home = Home(tmp_path)
    ensure_certificates(home, [])
    home.write_endpoint(Endpoint("127.0.0.1:1", "127.0.0.1:1", 12))
    for name in ("damaged", "going"):
        (home.runs / name).mkdir(parents=True)
    (home.runs / "damaged" / "result.json").write_text('{"study_name": "tin')
    state = read_status(home)
    assert state.health is Health.UNREACHABLE
    assert {made.run: made.outcome for made in state.runs} == {"damaged": "unreadable", "going": "stopped"}


def test_reader_sees_each_event_once_and_never_half_of_one(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    assert reader.new() == []
    log = EventLog(path)
    log.write(Event.ROUND, round=1, of=2)
    assert [event["round"] for event in reader.new()] == [1]
    with path.open("a") as stream:
        stream.write('{"event": "rou')
        stream.flush()
        assert reader.new() == []
        stream.write('nd", "round": 2}\n')
    assert [event["round"] for event in reader.new()] == [2]
    EventLog(path).write(Event.FAILED, code=50, problem="p", fix="f")
    assert [event["event"] for event in reader.new()] == ["failed"]


@pytest.mark.parametrize(
    ("address", "health", "expected"),
    [
        ("127.0.0.1:8000", None, Listen("127.0.0.1", 8000, "127.0.0.1", 8001)),
        ("localhost:9000", None, Listen("127.0.0.1", 9000, "127.0.0.1", 9001)),
        ("0.0.0.0:8000", "0.0.0.0:8100", Listen("0.0.0.0", 8000, "0.0.0.0", 8100)),
    ],
)
def test_address(address: str, health: str | None, expected: Listen) -> None:
    listen = Listen.parse(address, health)
    assert listen == expected
    assert listen.endpoint().address == f"127.0.0.1:{expected.port}"
    assert listen.endpoint().health_address == f"127.0.0.1:{expected.health_port}"


@pytest.mark.parametrize("address", ["8000", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "10.0.0.5:8000"])
def test_address_that_cannot_serve_is_refused(address: str) -> None:
    with pytest.raises(SemcError) as caught:
        Listen.parse(address, None)
    assert caught.value.code is ExitCode.USAGE


def test_last_json_skips_what_flower_prints_around_it() -> None:
    text = (
        'Loading {config}\n{"a": 1}\n' + json.dumps({"success": True, "runs": [{"b": 2}]}, indent=2) + "\nbye"
    )
    assert last_json(text) == {"success": True, "runs": [{"b": 2}]}
    assert last_json("nothing { here") is None


def test_another_flower_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_flower_version()
    monkeypatch.setattr("semc.flower_version.version", lambda name: "1.42.0")
    with pytest.raises(SemcError) as caught:
        check_flower_version()
    assert caught.value.code is ExitCode.VERSION_MISMATCH


def test_status_says_what_privacy_each_run_gives(tmp_path: Path) -> None:
    home = Home(tmp_path)
    ensure_certificates(home, [])
    home.write_endpoint(Endpoint("127.0.0.1:1", "127.0.0.1:1", 12))
    for name, study in (("plain", tiny_study()), ("private", private_study())):
        (home.runs / name).mkdir(parents=True)
        (home.runs / name / "study.yaml").write_text(study.to_yaml())
    assert {made.run: made.privacy for made in read_status(home).runs} == {
        "plain": "no formal guarantee",
        "private": "patient-level privacy, epsilon at most 8 at delta 1e-05",
    }
