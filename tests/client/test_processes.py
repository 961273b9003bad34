"""Children: their output is kept, they end when told, and none outlives its supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from client.child import Child
from client.disk_trouble import DiskTrouble
from client.environment import flower_environment, without_proxy_on_loopback
from client.known_key import KnownKey
from client.lock import held
from client.log_file import LogFile
from client.progress import Progress, from_line
from client.supernode import Sign, arguments, read_sign
from semc.config import SiteConfig
from semc.config.site import CoordinatorConfig
from semc.exit_codes import ExitCode, SemcError

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""
PARENT = """
import os, subprocess, sys, time
os.environ["SEMC_SUPERVISOR_PID"] = str(os.getpid())
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print(child.pid, flush=True)
time.sleep(60)
"""
CHILD = """
import signal, time
from client.lifeline import end_with_supervisor
end_with_supervisor(signal.SIGKILL)
time.sleep(60)
"""
FORKING = """
import os, sys, time
from client.lifeline import end_forks_with_this_process
if sys.argv[1] == "followed":
    end_forks_with_this_process()
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(60)
"""


def wait_for(condition: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def module(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write an importable module and return its name."""
    (folder / "a_child.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return "a_child"


def log_file(path: Path) -> LogFile:
    return LogFile(path, DiskTrouble(lambda _: None))


def test_a_childs_lines_reach_the_log_or_the_listener(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "import sys\nprint('to the log')\nprint('for us')\nprint(sys.argv[1], file=sys.stderr)\nsys.exit(3)"
    )
    heard: list[str] = []

    def listen(line: str) -> bool:
        heard.append(line.strip())
        return "for us" in line

    log = log_file(tmp_path / "logs" / "child.log")
    child = Child(module(tmp_path, text, monkeypatch), ["argument"], {}, log, listen)
    wait_for(lambda: child.ended() is not None)
    assert child.ended() == 3
    assert set(heard) == {"to the log", "for us", "argument"}
    written = (tmp_path / "logs" / "child.log").read_text()
    assert "to the log" in written
    assert "argument" in written
    assert "for us" not in written


def test_a_folder_named_like_us_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "client").mkdir()
    (tmp_path / "client" / "__init__.py").write_text("raise SystemExit(77)")
    monkeypatch.chdir(tmp_path)
    log = log_file(tmp_path / "child.log")
    child = Child("client.environment", [], {}, log, lambda line: False)
    wait_for(lambda: child.ended() is not None)
    assert child.ended() == 0
    plain = subprocess.run([sys.executable, "-m", "client.environment"], check=False)
    assert plain.returncode == 77, "the control: without -P it is"


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    name = module(tmp_path, STUBBORN, monkeypatch)
    log = log_file(tmp_path / "child.log")
    child = Child(name, [], {}, log, lambda line: bool(heard.append(line)))  # type: ignore[func-returns-value]
    wait_for(lambda: heard)
    started = time.monotonic()
    child.end(0.3)
    assert time.monotonic() - started < 5
    assert child.ended() == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal")
def test_a_child_dies_with_a_supervisor_that_was_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.5)
    assert child.is_running()
    parent.kill()
    parent.wait()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal")
def test_a_child_whose_supervisor_died_first_ends_at_once() -> None:
    environment = {**os.environ, "SEMC_SUPERVISOR_PID": "1"}
    done = subprocess.run([sys.executable, "-c", CHILD], env=environment, check=False, timeout=20)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal")
@pytest.mark.parametrize("way", ["followed", "left alone"])
def test_a_fork_dies_with_the_process_that_forked_it(way: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", FORKING, way], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs([child], timeout=1.0 if way == "left alone" else 10.0)
    assert bool(alive) == (way == "left alone"), "the control outlives it"
    for process in alive:
        process.kill()


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    with held(tmp_path / "a" / "lock", "busy", "wait"):
        with pytest.raises(SemcError) as caught, held(tmp_path / "a" / "lock", "busy", "wait"):
            pass
        assert caught.value.code is ExitCode.ALREADY_RUNNING
    with held(tmp_path / "a" / "lock", "busy", "wait"):
        pass


def test_a_key_is_known_for_one_coordinator(tmp_path: Path) -> None:
    key = KnownKey(tmp_path / "run", "SHA256:x", "a:1")
    assert not key.is_known
    key.remember()
    assert KnownKey(tmp_path / "run", "SHA256:x", "a:1").is_known
    assert not KnownKey(tmp_path / "run", "SHA256:x", "b:1").is_known
    assert not KnownKey(tmp_path / "run", "SHA256:y", "a:1").is_known
    (tmp_path / "run" / "accepted.json").write_text("{damaged")
    assert not KnownKey(tmp_path / "run", "SHA256:x", "a:1").is_known
    assert key.is_known, "what this process saw itself counts, whatever the disk says"


def test_progress_survives_the_pipe_and_log_lines_are_left_alone() -> None:
    progress = Progress("training", 3, 12, 20, loss=0.5, text="é\n")
    assert progress.to_line().count("\n") == 1
    assert from_line(progress.to_line()) == progress
    for line in ("INFO ready", "", "\x1e{", '\x1e{"phase": "training", "stranger": 1}', "\x1e[]"):
        assert from_line(line) is None


def test_loopback_never_takes_a_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet.example, 127.0.0.1")
    assert without_proxy_on_loopback() == "intranet.example,127.0.0.1,localhost"
    environment = flower_environment(tmp_path)
    assert environment["FLWR_HOME"] == str(tmp_path)
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"


def test_the_supernodes_command_line(tmp_path: Path) -> None:
    coordinator = CoordinatorConfig(address="host:8000", root_certificates=tmp_path / "ca.crt")
    site = SiteConfig(site="north", data={"root": tmp_path}, coordinator=coordinator, health_port=9100)
    command = arguments(site, 9094, tmp_path / "secret")
    pairs = dict(zip(command[::2], command[1::2], strict=True))
    assert pairs["--host"] == "127.0.0.1", "no inbound port"
    assert pairs["--isolation"] == "process"
    assert pairs["--superlink"] == "host:8000"
    assert pairs["--health-server-address"] == "127.0.0.1:9100"
    assert "--insecure" not in command
    assert "--trusted-entities" not in command
    with pytest.raises(SemcError) as caught:
        arguments(site.model_copy(update={"coordinator": None}), 9094, tmp_path / "secret")
    assert caught.value.code is ExitCode.CONFIG_INVALID


def test_other_lines_of_a_supernode_tell_nothing() -> None:
    assert read_sign("INFO: Receiving: train message (ID: 2004)") is None
    assert read_sign("\x1b[92mINFO\x1b[0m : SuperNode ID: 17") is Sign.JOINED
