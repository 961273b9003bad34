"""`semc-client join`: what can be told in one line is checked first, then the processes are started."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Final

from client.console import Console
from client.coordinator import trust
from client.identity import read_identity
from client.known_key import KnownKey
from client.lock import held
from client.loopback_port import check_health_port
from client.reconnection import Reconnection
from client.supervisor import Supervisor
from semc.config import SiteConfig
from semc.exit_codes import ExitCode, SemcError
from semc.flower_version import check_flower_version

DEFAULT_WAIT_SECONDS: Final = 90.0


def join(site_file: Path, site: SiteConfig, wait_seconds: float = DEFAULT_WAIT_SECONDS) -> None:
    """Take part in the federation until SIGTERM or SIGINT.

    Args:
        site_file: The hospital's YAML, for the worker.
        site: Its content.
        wait_seconds: How long to wait for a coordinator that does not answer; without limit once it accepted
            this site.

    Raises:
        SemcError: CONFIG_INVALID, VERSION_MISMATCH, KEY_INVALID, ALREADY_RUNNING, PORT_IN_USE,
            DISK, SERVER_UNREACHABLE, TLS_UNTRUSTED, CLOCK_SKEW, KEY_UNREGISTERED, INTERNAL.
    """
    stop = _stop_on_signals()
    coordinator = site.coordinator
    if coordinator is None:
        raise SemcError(
            ExitCode.CONFIG_INVALID,
            "The site file names no coordinator.",
            "add the section `coordinator` with address and root_certificates",
        )
    check_flower_version()
    identity = read_identity(site.private_key, site.site)
    check_health_port(site)
    trust(coordinator)
    lock = held(
        site.state_directory / "client.lock",
        f"Site '{site.site}' takes part already.",
        "stop the other semc-client first",
    )
    with lock, Console(site.site) as console:
        known_key = KnownKey(site.state_directory / "run", identity.fingerprint, coordinator.address)
        way_back = Reconnection(coordinator, known_key, console, stop, wait_seconds)
        way_back.wait()
        if stop.is_set():
            return
        Supervisor(site_file, site, known_key, way_back, console, stop).run()
        console.say("left the federation")


def _stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
