"""The command line: one line and a number for every wrong input, help at once."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from client.identity import create_identity
from client.lock import held
from semc.exit_codes import ExitCode
from tests.client.loopback_tls import Authority, https_server

CLIENT = Path(sys.executable).parent / "semc-client"


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CLIENT, *arguments], capture_output=True, text=True, check=False, cwd=cwd, timeout=120
    )


def refused(code: ExitCode, *arguments: str, cwd: Path | None = None) -> str:
    """Return the one line of a command that must fail with this code."""
    done = run(*arguments, cwd=cwd)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error ")]
    assert done.returncode == code, done.stderr
    assert len(lines) == 1
    assert lines[0].startswith(f"error {int(code)} {code.name}: ")
    assert " Fix: " in lines[0]
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return the folder of a site with a key, whose coordinator is nobody."""
    create_identity(tmp_path / "site.key", "north")
    Authority(tmp_path, "ca")
    write(tmp_path, "127.0.0.1:9")
    return tmp_path


def write(folder: Path, address: str, **changes: object) -> None:
    coordinator = {"address": address, "root_certificates": "ca.crt"}
    content = {"site": "north", "data": {"root": "images"}, "coordinator": coordinator, **changes}
    (folder / "site.yaml").write_text(yaml.safe_dump(content))


def test_help_is_immediate_and_imports_nothing_heavy() -> None:
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        done = run("--help")
        seconds.append(time.monotonic() - started)
        assert done.returncode == 0
        assert all(word in done.stdout for word in ("join", "check", "keygen", "Example:"))
    probe = (
        "import sys, client.cli; print([m for m in ('torch', 'flwr', 'pandas', 'httpx') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
    assert min(seconds) < 2, "0.2 s on a quiet machine"


@pytest.mark.parametrize("command", ["join", "check", "adopt", "keygen"])
def test_every_command_shows_an_example(command: str) -> None:
    assert "Example: semc-client" in run(command, "--help").stdout


def test_which_site_must_be_said(tmp_path: Path) -> None:
    refused(ExitCode.USAGE)
    assert str(tmp_path) not in refused(ExitCode.CONFIG_NOT_FOUND, "--site", str(tmp_path / "absent"))
    assert run("--nonsense").returncode == ExitCode.USAGE
    refused(ExitCode.CONFIG_NOT_FOUND, "check", "--site", "absent")


def test_a_site_is_found_by_file_by_folder_and_by_name(
    site: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("place")
    (place / "sites").mkdir()
    (place / "sites" / "north").symlink_to(site)
    for name in (str(site / "site.yaml"), str(site), "north"):
        assert "has a key already" in refused(ExitCode.KEY_INVALID, "--site", name, "keygen", cwd=place)


def test_keygen_prints_what_the_coordinator_needs(site: Path) -> None:
    (site / "site.key").unlink()
    done = run("--site", str(site), "keygen")
    assert done.returncode == 0
    assert done.stdout.startswith("ecdsa-sha2-nistp384 ")
    assert "semc-server enrol north --public-key site.key.pub --images N" in done.stdout
    assert "studies with patient-level privacy do without" in done.stdout
    assert stat.S_IMODE((site / "site.key").stat().st_mode) == 0o600
    assert "PRIVATE" not in done.stdout


def test_an_unknown_key_in_the_site_file(site: Path) -> None:
    write(site, "127.0.0.1:9", stranger=1)
    assert "stranger" in refused(ExitCode.CONFIG_INVALID, "--site", str(site))


def test_no_coordinator(site: Path) -> None:
    (site / "site.yaml").write_text(yaml.safe_dump({"site": "north", "data": {"root": "images"}}))
    refused(ExitCode.CONFIG_INVALID, "--site", str(site))


def test_a_key_that_is_missing_or_open(site: Path) -> None:
    (site / "site.key").chmod(0o644)
    refused(ExitCode.KEY_INVALID, "--site", str(site))
    (site / "site.key").unlink()
    assert "keygen" in refused(ExitCode.KEY_INVALID, "--site", str(site))


def test_a_coordinator_that_does_not_answer(site: Path) -> None:
    refused(ExitCode.SERVER_UNREACHABLE, "--site", str(site), "join", "--wait", "0")


def test_a_coordinator_under_another_ca(site: Path) -> None:
    other = Authority(site, "other")
    with https_server(other.server_context()) as address:
        write(site, address)
        refused(ExitCode.TLS_UNTRUSTED, "--site", str(site))


def test_a_clock_that_is_wrong(site: Path) -> None:
    authority = Authority(site, "ca")
    with https_server(authority.server_context(), date="Thu, 01 Jan 2015 00:00:00 GMT") as address:
        write(site, address)
        refused(ExitCode.CLOCK_SKEW, "--site", str(site))


def test_a_second_client_of_one_site(site: Path) -> None:
    with held(site / "state" / "client.lock", "-", "-"):
        refused(ExitCode.ALREADY_RUNNING, "--site", str(site))


def test_a_taken_health_port(site: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        write(site, "127.0.0.1:9", health_port=taken.getsockname()[1])
        refused(ExitCode.PORT_IN_USE, "--site", str(site))


def test_a_state_directory_that_is_not_ours(site: Path) -> None:
    write(site, "127.0.0.1:9", state_directory="/proc/state")
    refused(ExitCode.DISK, "--site", str(site))


def test_check_as_json_exits_with_the_one_error(site: Path) -> None:
    write(site, "127.0.0.1:9")
    done = run("--site", str(site), "check", "--format", "json")
    content = json.loads(done.stdout)
    assert done.returncode == content["exit_code"] == ExitCode.CHECK_FAILED
    assert {row["check"] for row in content["rows"] if row["state"] == "wrong"} == {"images", "coordinator"}


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = run("--debug", "--site", str(tmp_path / "absent"))
    assert done.returncode != 0
    assert "Traceback" in done.stderr
