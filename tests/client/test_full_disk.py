"""A real disk that is really full (a tmpfs of 8 MiB): lines are lost, rounds are declined, and nothing has to be
started again once there is space.
"""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path

import pytest
import yaml

from client.child import Child
from client.console import Console
from client.disk_trouble import QUIET_SECONDS, DiskTrouble
from client.known_key import KnownKey
from client.log_file import LogFile
from client.shared_secret import new_secret
from client.supervisor import GRACE_SECONDS
from client.worker_process import WorkerProcess
from semc.config import load_site
from semc.exit_codes import ExitCode, SemcError
from semc.protocol import RefusalCode
from tests.client.loopback_supernode import SECRET, supernode
from tests.client.test_app import PAYLOAD, content

TALKATIVE = "for number in range(20_000):\n    print('line', number, '.' * 40)"


class SmallDisk:
    """A file system of its own that can be filled and freed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))

    def free(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "semc-test", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root on Linux only")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_costs_log_lines_and_is_said_once(
    disk: SmallDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    now = [0.0]
    trouble = DiskTrouble(said.append, lambda: now[0])
    log, other = LogFile(disk.folder / "logs" / "a.log", trouble), LogFile(disk.folder / "b.log", trouble)
    log.line("before")
    disk.fill()
    for number in range(500):
        log.line(f"{number} {'.' * 100}")
        other.line(f"{number} {'.' * 100}")
    assert [line.partition(" (")[0] for line in said] == ["the state directory cannot be written"]
    assert "No space left on device" in said[0]
    disk.free()
    now[0] += QUIET_SECONDS
    log.line("after")
    log.line("and after")
    assert said[1:] == ["the state directory can be written again"]
    text = (disk.folder / "logs" / "a.log").read_text()
    assert "before" in text
    assert "lines before this one could not be written)\n" in text
    assert text.rstrip().endswith("and after")
    assert capsys.readouterr().err == "", "no traceback for a line"
    log.close()
    other.close()


def test_the_control_a_plain_log_prints_a_traceback_for_every_line(
    disk: SmallDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = RotatingFileHandler(disk.folder / "plain.log")
    disk.fill()
    for _ in range(100):
        plain.emit(logging.makeLogRecord({"msg": "." * 100}))
    assert capsys.readouterr().err.count("Traceback") > 10
    disk.free()
    plain.close()


def test_a_child_is_listened_to_though_its_log_is_full(
    disk: SmallDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "talkative.py").write_text(TALKATIVE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said: list[str] = []
    log = LogFile(disk.folder / "child.log", DiskTrouble(said.append))
    disk.fill()
    child = Child("talkative", [], {}, log, lambda line: False)
    deadline = time.monotonic() + 30
    while child.ended() is None:
        assert time.monotonic() < deadline, "it stands still at a full pipe"
        time.sleep(0.05)
    assert child.ended() == 0
    assert len(said) == 1


def test_a_full_disk_at_the_start_is_told_with_its_number(disk: SmallDisk, tmp_path: Path) -> None:
    (disk.folder / "run").mkdir()
    disk.fill()
    with pytest.raises(SemcError) as caught:
        new_secret(disk.folder / "run")
    assert caught.value.code is ExitCode.DISK
    assert "No space left" in caught.value.problem
    (tmp_path / "file").touch()
    with pytest.raises(SemcError) as caught:
        LogFile(tmp_path / "file" / "logs" / "a.log", DiskTrouble(lambda _: None))
    assert caught.value.code is ExitCode.DISK


def test_an_accepted_key_counts_though_it_cannot_be_noted(disk: SmallDisk) -> None:
    disk.fill()
    key = KnownKey(disk.folder / "run", "SHA256:x", "a:1")
    with pytest.raises(OSError, match="No space left"):
        key.remember()
    assert key.is_known
    assert not KnownKey(disk.folder / "run", "SHA256:x", "a:1").is_known, "half a note is none"
    disk.free()
    key.remember()
    assert json.loads((disk.folder / "run" / "accepted.json").read_text())["coordinator"] == "a:1"


def test_a_real_worker_declines_while_the_disk_is_full_and_trains_after(
    disk: SmallDisk, hospital: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site_file = tmp_path / "site.yaml"
    changed = {"data": {"root": str(hospital.parent / "images")}, "state_directory": str(disk.folder)}
    site_file.write_text(yaml.safe_dump(yaml.safe_load(hospital.read_text()) | changed))
    (tmp_path / "secret").write_bytes(SECRET)
    console = Console("north")
    log = LogFile(disk.folder / "logs" / "worker.log", DiskTrouble(console.say))
    worker = WorkerProcess(site_file, load_site(site_file), tmp_path / "secret", log, console)
    try:
        with supernode() as node:
            worker.start(int(node.address.rpartition(":")[2]), threading.Event())
            disk.fill()
            node.give_task()
            node.give_message(content(1, PAYLOAD), 1)
            refused = node.reply(60)
            disk.free()
            node.give_task()
            node.give_message(content(1, PAYLOAD), 2)
            answer = node.reply(60)
            assert worker.ended() is None, "without a restart"
    finally:
        worker.end(GRACE_SECONDS)
        log.close()
    assert refused.error.reason == RefusalCode.DISK.value
    assert not answer.has_error()
    said = capsys.readouterr().err
    assert "declined E_DISK" in said
    assert "Traceback" not in said
