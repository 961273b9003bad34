"""`semc-client join`: what can be told in one line is checked first, then the processes are started."""

from __future__ import annotations

import signal
import socket
import threading
import time
from pathlib import Path
from typing import Final

from client.console import Console
from client.coordinator import ask, check_clock
from client.identity import read_identity
from client.known_key import KnownKey
from client.lock import held
from client.supervisor import Supervisor
from semc.config import SiteConfig
from semc.config.site import CoordinatorConfig
from semc.exit_codes import ExitCode, SemcError
from semc.flower_version import check_flower_version

DEFAULT_WAIT_SECONDS: Final = 90.0
_RETRY_SECONDS: Final = 2.0


def join(site_file: Path, site: SiteConfig, wait_seconds: float = DEFAULT_WAIT_SECONDS) -> None:
    """Take part in the federation until SIGTERM or SIGINT.

    Args:
        site_file: The hospital's YAML, for the worker.
        site: Its content.
        wait_seconds: How long to wait for a coordinator that does not answer yet.

    Raises:
        SemcError: CONFIG_INVALID, VERSION_MISMATCH, KEY_INVALID, ALREADY_RUNNING, PORT_IN_USE,
            SERVER_UNREACHABLE, TLS_UNTRUSTED, CLOCK_SKEW, KEY_UNREGISTERED, INTERNAL.
    """
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
    stop = _stop_on_signals()
    lock = held(
        site.state_directory / "client.lock",
        f"Site '{site.site}' takes part already.",
        "stop the other semc-client first",
    )
    with lock, Console(site.site) as console:
        _wait_for(coordinator, wait_seconds, console, stop)
        if stop.is_set():
            return
        known_key = KnownKey(site.state_directory / "run", identity.fingerprint, coordinator.address)
        Supervisor(site_file, site, known_key, console, stop).run()
        console.say("left the federation")


def check_health_port(site: SiteConfig) -> None:
    """Refuse a health port that is taken.

    Raises:
        SemcError: PORT_IN_USE.
    """
    if site.health_port is None:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", site.health_port))
        except OSError as error:
            raise SemcError(
                ExitCode.PORT_IN_USE,
                f"The health port {site.health_port} is taken.",
                "choose another health_port in the site file",
            ) from error


def _stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _wait_for(
    coordinator: CoordinatorConfig, wait_seconds: float, console: Console, stop: threading.Event
) -> None:
    """Wait until the coordinator answers; a wrong certificate or clock ends the wait at once."""
    deadline = time.monotonic() + wait_seconds
    said = False
    while not stop.is_set():
        try:
            check_clock(ask(coordinator))
            return
        except SemcError as error:
            if error.code is not ExitCode.SERVER_UNREACHABLE or time.monotonic() >= deadline:
                raise
            if not said:
                console.say(f"{coordinator.address} does not answer yet; trying for {wait_seconds:.0f} s")
                said = True
        stop.wait(_RETRY_SECONDS)
