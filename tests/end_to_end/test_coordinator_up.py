"""The real `semc-server` on loopback: TLS, authentication, enrolment, exit codes, crashes, clean end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from semc.exit_codes import ExitCode
from server.events import Event, EventReader
from server.health import Health, ask_health
from server.home import Home
from server.run_folder import RunFolder
from simulation.rehearsal import free_port
from tests.end_to_end.conftest import STUDY

BIN = Path(sys.executable).parent


@dataclass
class Coordinator:
    """A running `semc-server up`."""

    home: Home
    address: str
    process: subprocess.Popen[str]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run("semc-server", *arguments, "--home", str(self.home.root))

    @property
    def health(self) -> Health:
        return ask_health(self.home.endpoint().health_address)

    def children(self) -> dict[str, psutil.Process]:
        """Return the running children by their role."""
        children = {}
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):  # it may end while it is looked at
                children[child.cmdline()[5]] = child
        return children


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BIN / program), *arguments], capture_output=True, text=True, check=False)


def start(home: Path, host: str = "127.0.0.1", *names: str) -> Coordinator:
    port = free_port()
    address = f"127.0.0.1:{port}"
    process = subprocess.Popen(
        [
            *(str(BIN / "semc-server"), "up", "--home", str(home), "--address", f"{host}:{port}"),
            *("--health-address", f"127.0.0.1:{free_port()}"),
            *(part for name in names for part in ("--san", name)),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith(f"ready: {address}"), line
    return Coordinator(Home(home), address, process)


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    running = start(tmp_path_factory.mktemp("coordinator") / "home")
    yield running
    wait_for(lambda: len(running.children()) == 2)
    children = list(running.children().values())
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(30) == 0
    assert not any(child.is_running() for child in children)


@pytest.fixture(scope="module")
def public_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "north.pub"
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    path.write_bytes(key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH))
    return path


def study_file(folder: Path, **federation: object) -> Path:
    content = yaml.safe_load(STUDY)
    content["federation"] |= federation
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_serves_https_under_its_own_authority_only(coordinator: Coordinator) -> None:
    assert coordinator.health is Health.SERVING
    trusting = ssl.create_default_context(cafile=str(coordinator.home.ca_certificate))
    assert httpx.get(f"https://{coordinator.address}/health", verify=trusting).status_code == 200
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"https://{coordinator.address}/health")
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"http://{coordinator.address}/health")


def test_secret_and_key_are_never_in_a_command_line(coordinator: Coordinator) -> None:
    secret = coordinator.home.secret.read_text()
    shown = " ".join(" ".join(child.cmdline()) for child in coordinator.children().values())
    assert "server.superlink" in shown
    assert secret not in shown
    assert coordinator.home.database.stat().st_mode & 0o077 == 0


def test_enrol_registers_once_and_status_shows_it(coordinator: Coordinator, public_key: Path) -> None:
    for images in ("40", "41"):
        done = coordinator.command("enrol", "north", "--public-key", str(public_key), "--images", images)
        assert done.returncode == 0, done.stderr
    done = coordinator.command("enrol", "north", "--public-key", str(public_key))
    assert "41 images" in done.stdout, "a number that was told stays until another one is"
    done = coordinator.command("status", "--format", "json")
    assert done.returncode == 0, done.stderr
    state = json.loads(done.stdout)
    assert state["health"] == "serving"
    assert state["sites"] == [{"site": "north", "state": "registered", "num_examples": 41}]
    assert 89 < state["certificate_days_left"] <= 90


def test_bad_input_is_one_line_with_a_number(
    coordinator: Coordinator, public_key: Path, tmp_path: Path
) -> None:
    key = ("--public-key", str(public_key), "--images", "1")
    nokey = tmp_path / "no.pub"
    nokey.write_text("not a key")
    cases = [
        (("enrol", "south", *key), ExitCode.KEY_INVALID, "already belongs to site 'north'"),
        (("enrol", "North!", *key), ExitCode.USAGE, "lower-case"),
        (("enrol", "south", "--public-key", str(nokey), "--images", "1"), ExitCode.KEY_INVALID, "OpenSSH"),
        (("revoke", "nobody"), ExitCode.KEY_UNREGISTERED, "no enrolled site"),
        (("run", str(tmp_path / "absent.yaml")), ExitCode.CONFIG_NOT_FOUND, "absent.yaml"),
        (("run", str(study_file(tmp_path))), ExitCode.KEY_UNREGISTERED, "south, west"),
        (("report", "no-such-run"), ExitCode.CONFIG_NOT_FOUND, "no run"),
        (("up", "--address", "127.0.0.1:1"), ExitCode.ALREADY_RUNNING, "already runs"),
    ]
    for arguments, code, text in cases:
        done = coordinator.command(*arguments)
        lines = done.stderr.strip().splitlines()
        assert (done.returncode, len(lines)) == (code, 1), done.stderr
        assert lines[0].startswith(f"error {int(code)} {code.name}: ")
        assert text in lines[0]
        assert " Fix: " in lines[0]
        assert str(tmp_path) not in lines[0]


def test_taken_port_and_missing_coordinator_are_told(coordinator: Coordinator, tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    done = run("semc-server", "up", "--home", other, "--address", coordinator.address)
    assert done.returncode == ExitCode.PORT_IN_USE
    for command in ("status", "run"):
        arguments = [str(study_file(tmp_path))] if command == "run" else []
        done = run("semc-server", command, *arguments, "--home", str(tmp_path / "never"))
        assert done.returncode == ExitCode.SERVER_UNREACHABLE, done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = run("semc-server", "--debug", "status", "--home", str(tmp_path))
    assert "Traceback" in done.stderr
    assert "SemcError" in done.stderr


def test_sites_that_never_join_lose_the_quorum_and_the_next_run_starts(
    coordinator: Coordinator, public_key: Path, tmp_path: Path
) -> None:
    coordinator.command("enrol", "north", "--public-key", str(public_key), "--images", "41")
    study = study_file(tmp_path, sites=["north"], join_timeout_seconds=1)
    for number in (1, 2):  # the executor ends with a run; the second one shows that there is a next
        done = coordinator.command("run", str(study))
        assert done.returncode == ExitCode.QUORUM_LOST, done.stderr
        assert "north dropped at join (D_ABSENT)" in done.stderr
        run_folder = coordinator.home.latest_run()
        assert run_folder is not None
        assert run_folder.root.name.endswith(f"-00{number}")
        assert run_folder.result().outcome == "quorum_lost"
    out = tmp_path / "report.html"
    assert coordinator.command("report", "--out", str(out)).returncode == 0
    assert "<html" in out.read_text()


def test_killed_superlink_comes_back_with_its_enrolments(coordinator: Coordinator, public_key: Path) -> None:
    coordinator.command("enrol", "north", "--public-key", str(public_key), "--images", "41")
    coordinator.children()["superlink"].kill()
    wait_for(lambda: coordinator.health is not Health.SERVING)
    wait_for(lambda: coordinator.health is Health.SERVING)
    done = coordinator.command("status", "--format", "json")
    assert json.loads(done.stdout)["sites"][0]["state"] == "registered"


def outside_address() -> str | None:
    """Return an address of this machine that is not loopback; connections to it come from it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            return None
        found = str(probe.getsockname()[0])
    return None if found.startswith("127.") else found


def test_outsiders_reach_the_fleet_only_and_no_child_outlives_a_kill(tmp_path: Path) -> None:
    outside = outside_address()
    running = start(tmp_path / "home", "0.0.0.0", *([outside] if outside else []))
    wait_for(lambda: len(running.children()) == 2)
    if outside is not None:
        trusting = ssl.create_default_context(cafile=str(running.home.ca_certificate))
        with httpx.Client(verify=trusting, trust_env=False) as client:
            inside, port = running.address, running.address.rpartition(":")[2]
            assert client.get(f"https://{inside}/health").status_code == 200
            assert client.post(f"https://{inside}/v1/control/list-runs").status_code != 404
            for path in ("health", "docs", "v1/control/list-runs", "v1/runtime/acquire-task"):
                for method in ("GET", "POST"):
                    answer = client.request(method, f"https://{outside}:{port}/{path}")
                    assert (answer.status_code, answer.content) == (404, b"")
            fleet = client.post(f"https://{outside}:{port}/v1/fleet/pull-messages")
            assert fleet.status_code not in (404, 405)
    children = list(running.children().values())
    running.process.kill()
    running.process.wait(30)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


def test_study_goes_on_without_a_site_that_declines_and_says_so(
    coordinator: Coordinator, hospitals: Path, tmp_path: Path
) -> None:
    """Two real hospitals; the second does not allow the study: exit 51, and it is named with its code."""
    clients = []
    names = ("south", "west")
    try:
        for name in names:
            folder = tmp_path / name
            shutil.copytree(hospitals / name, folder)
            site = yaml.safe_load((folder / "site.yaml").read_text()) | {
                "coordinator": {
                    "address": coordinator.address,
                    "root_certificates": str(coordinator.home.ca_certificate),
                },
                "runtime_port": free_port(),
                "poll_seconds": 0.1,
            }
            if name == "west":
                site["allowed_studies"] = ["0" * 64]
            (folder / "site.yaml").write_text(yaml.safe_dump(site))
            keygen = run("semc-client", "--site", str(folder), "keygen")
            assert keygen.returncode == 0, keygen.stderr
            [public] = folder.glob("*.pub")
            done = coordinator.command("enrol", name, "--public-key", str(public), "--images", "9")
            assert done.returncode == 0, done.stderr
            clients.append(
                subprocess.Popen(
                    [str(BIN / "semc-client"), "--site", str(folder)],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=dict(os.environ),
                )
            )
        study = study_file(tmp_path, sites=list(names), quorum=1, rounds=2, join_timeout_seconds=120)
        done = coordinator.command("run", str(study), "--format", "json")
    finally:
        for client in clients:
            client.terminate()
        for client in clients:
            client.wait(60)
    assert done.returncode == ExitCode.COMPLETE_ON_SUBSET, done.stderr
    result = json.loads(done.stdout)
    assert result["outcome"] == "complete_on_subset"
    assert [entry["receipts"] for entry in result["rounds"]] == [{"south": "in", "west": "declined"}] * 2
    assert [entry["reasons"] for entry in result["rounds"]] == [{"west": "E_STUDY"}] * 2


def starts(folder: RunFolder) -> int:
    """Return how often a run's round loop has begun."""
    return sum(event["event"] == Event.STARTED for event in EventReader(folder.events_file).new())


@pytest.mark.slow
def test_a_round_loop_that_is_killed_again_and_again_is_brought_back_three_times_then_52(
    coordinator: Coordinator, public_key: Path, tmp_path: Path
) -> None:
    """What a single kill does is shown in tests/faults: the study goes on and ends bit-equal."""
    coordinator.command("enrol", "north", "--public-key", str(public_key), "--images", "41")
    study = study_file(tmp_path, sites=["north"], join_timeout_seconds=600)
    before = coordinator.home.latest_run()
    waiting = subprocess.Popen(
        [str(BIN / "semc-server"), "run", str(study), "--home", str(coordinator.home.root)],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: coordinator.home.latest_run() != before)
    folder = coordinator.home.latest_run()
    assert folder is not None
    for deaths in range(1, 5):
        wait_for(lambda: folder.is_locked and starts(folder) == deaths)
        coordinator.children()["executor"].kill()
        wait_for(lambda: not folder.is_locked)
    _, errors = waiting.communicate(timeout=240)
    assert waiting.returncode == ExitCode.RUN_FAILED
    assert "died 4 times without finishing another round" in errors
    assert "semc-server resume" in errors
