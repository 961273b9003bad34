"""The systemd units: commands and exit codes that exist, one SIGTERM to the program alone, time to leave in."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.main import get_command

from client.device_lock import LOCK_FOLDER
from client.supervisor import GRACE_SECONDS
from semc.exit_codes import ExitCode

DOCKER = Path(__file__).resolve().parents[2] / "docker"
UNITS = ("semc-client", "semc-server")
FOR_SOMEBODY = {
    "semc-client": {"CONFIG_INVALID", "KEY_UNREGISTERED", "KEY_INVALID", "VERSION_MISMATCH"},
    "semc-server": {"PORT_IN_USE", "ALREADY_RUNNING", "VERSION_MISMATCH"},
}
PASSES_BY_ITSELF = {"INTERNAL", "DISK", "SERVER_UNREACHABLE", "RUN_FAILED"}


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=True, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((DOCKER / f"{name}.service").read_text(encoding="utf-8"))
    return parser


@pytest.mark.parametrize("name", UNITS)
def test_what_is_not_restarted_is_what_somebody_must_correct(name: str) -> None:
    service = unit(name)["Service"]
    assert service["Restart"] == "on-failure"
    names = {ExitCode(int(number)).name for number in service["RestartPreventExitStatus"].split()}
    assert names >= FOR_SOMEBODY[name]
    assert not names & PASSES_BY_ITSELF


@pytest.mark.parametrize("name", UNITS)
def test_the_program_ends_its_own_processes_and_has_the_time_for_it(name: str) -> None:
    service = unit(name)["Service"]
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) > GRACE_SECONDS + 5
    assert service["Type"] == "exec"


def test_the_commands_exist_with_these_options() -> None:
    from client.cli import app as client
    from server.cli import app as server

    program, *arguments = shlex.split(unit("semc-client")["Service"]["ExecStart"])
    assert Path(program).name == "semc-client"
    get_command(client).make_context("semc-client", arguments, resilient_parsing=False).close()
    program, command, *arguments = shlex.split(unit("semc-server")["Service"]["ExecStart"])
    assert Path(program).name == "semc-server"
    group = get_command(server)
    group.commands[command].make_context(command, arguments).close()  # type: ignore[attr-defined]


def sees_the_gpu_lock(service: Mapping[str, str]) -> bool:
    """Tell whether a service writes in the machine's own lock folder, not in a private or read-only one."""
    is_private = service.get("PrivateTmp", "no") != "no"
    is_read_only = service.get("ProtectSystem") == "strict"
    return not is_private and (not is_read_only or str(LOCK_FOLDER) in service["ReadWritePaths"].split())


def test_the_gpu_lock_is_the_machines_own() -> None:
    service = dict(unit("semc-client")["Service"])
    assert sees_the_gpu_lock(service)
    for defeats in ({"PrivateTmp": "yes"}, {"ReadWritePaths": "/srv/semc"}):
        assert not sees_the_gpu_lock(service | defeats), "the control"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_every_line(name: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", str(DOCKER / f"{name}.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Unknown" not in done.stderr
