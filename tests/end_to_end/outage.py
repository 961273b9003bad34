"""A coordinator that is away for a while: the whole `semc-server up`, ended in order and started again."""

from __future__ import annotations

import signal
import subprocess

from simulation.rehearsal import free_port
from tests.end_to_end.test_coordinator_up import BIN, Coordinator


def stop(coordinator: Coordinator) -> None:
    """End a coordinator with all its processes."""
    coordinator.process.send_signal(signal.SIGTERM)
    coordinator.process.wait(30)


def start_again(coordinator: Coordinator) -> None:
    """Start a coordinator that was stopped, with its home and its address."""
    command = [str(BIN / "semc-server"), "up", "--home", str(coordinator.home.root)]
    command += ["--address", coordinator.address, "--health-address", f"127.0.0.1:{free_port()}"]
    coordinator.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert coordinator.process.stdout is not None
    line = ""
    while not line.startswith("ready: "):
        line = coordinator.process.stdout.readline()
        assert line, "it ended"
