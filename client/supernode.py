"""The site's Flower SuperNode as a child process: its command line, and what its output says about joining.

Flower's exit codes never reach the process status, so joining, a refused key and an untrusted certificate are
recognised by their log lines (pinned by the contract test).
"""

from __future__ import annotations

import re
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Final

from client.lifeline import end_with_supervisor
from semc.config import SiteConfig
from semc.exit_codes import ExitCode, SemcError

MODULE: Final = "client.supernode"


class Sign(StrEnum):
    """What a line of a SuperNode's log tells."""

    JOINED = "joined"
    NOT_ACTIVATED = "not activated"
    """Key unknown, or the coordinator still shows the site online after a crash (60 s by its clock)."""
    NOT_CONNECTED = "not connected"
    """It gave up joining for another reason: the coordinator answers with an error, or in the middle of a word."""
    UNTRUSTED = "untrusted"
    RETRYING = "retrying"
    ANSWERED = "answered"
    """The coordinator answers after one or more tries that failed."""
    MESSAGE_LOST = "message lost"
    """It gave up on a download or an upload and goes on, while the coordinator waits for that reply; or it let a
    download be because its run has ended, while the worker that took the task already waits for the rest."""
    PORT_TAKEN = "port taken"


PATTERNS: Final = {
    Sign.JOINED: re.compile(r"SuperNode ID: (?P<node>\d+)"),
    Sign.NOT_ACTIVATED: re.compile(r"\[code: 2004\]"),
    Sign.NOT_CONNECTED: re.compile(r"Failed to initialize the connection to the SuperLink"),
    Sign.UNTRUSTED: re.compile(r"SSL/TLS handshake error detected"),
    Sign.RETRYING: re.compile(r"Connection attempt failed, retrying"),
    Sign.ANSWERED: re.compile(r"Connection successful after"),
    Sign.MESSAGE_LOST: re.compile(
        r"Failed to (receive|send) message \w+:"
        r"|status\. Ignoring message \w+"
        r"|status while receiving a message\. Ignoring the message"
    ),
    Sign.PORT_TAKEN: re.compile(r"SuperNode Runtime HTTP API failed to start"),
}


def read_sign(line: str) -> Sign | None:
    """Return what a log line tells, or None where it tells nothing."""
    return next((sign for sign, pattern in PATTERNS.items() if pattern.search(line)), None)


def arguments(site: SiteConfig, runtime_port: int, secret_file: Path) -> list[str]:
    """Return the command line of a site's SuperNode, after the program's name.

    Args:
        site: The hospital.
        runtime_port: Loopback port for its worker.
        secret_file: What worker and SuperNode share.

    Raises:
        SemcError: CONFIG_INVALID where the site file names no coordinator.
    """
    coordinator = site.coordinator
    if coordinator is None:
        raise SemcError(
            ExitCode.CONFIG_INVALID,
            "The site file names no coordinator.",
            "add the section `coordinator` with address and root_certificates",
        )
    command = [
        *("--superlink", coordinator.address),
        *("--root-certificates", str(coordinator.root_certificates)),
        *("--auth-supernode-private-key", str(site.private_key)),
        *("--host", "127.0.0.1"),
        *("--port", str(runtime_port)),
        *("--isolation", "process"),
        *("--superexec-auth-secret-file", str(secret_file)),
        *("--node-config", f'site="{site.site}"'),
    ]
    if site.health_port is not None:
        command += ["--health-server-address", f"127.0.0.1:{site.health_port}"]
    return command


def main() -> None:
    """Run the SuperNode in this process: `python -P -m client.supernode <longest poll> <arguments>`."""
    end_with_supervisor(signal.SIGTERM)
    from client.executor import run_supernode

    run_supernode(sys.argv[2:], longest_poll_seconds=float(sys.argv[1]))


if __name__ == "__main__":
    main()
