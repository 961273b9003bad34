"""`semc-server up`: SuperLink and executor as child processes, restarted when they end.

The executor ends after each run and is started again, warm for the next one. A SuperLink that dies is back
within seconds and continues from its database. A child that keeps dying at once ends the coordinator with a
number instead of a loop. The children cannot outlive this process.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from semc.exit_codes import ExitCode, SemcError
from server.health import Health, ask_health
from server.home import HOME_VARIABLE, Endpoint, Home
from server.process import START_FAILED, flower_environment, python_module
from server.tls import ensure_certificates, write_private

_READY_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 8.0
_QUICK_DEATH_SECONDS: Final = 10.0
_MOST_FAILURES: Final = 3
_LOOPBACK: Final = ("127.0.0.1", "localhost")
_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - the door in superlink.py leaves only the fleet endpoints to others


@dataclass(frozen=True)
class Listen:
    """Where the coordinator listens.

    Args:
        host: 127.0.0.1 for this machine only, 0.0.0.0 for the sites.
        port: Port of the SuperLink.
        health_host: Interface of the gRPC health service.
        health_port: Its port.
    """

    host: str
    port: int
    health_host: str
    health_port: int

    @classmethod
    def parse(cls, address: str, health_address: str | None) -> Listen:
        """Read `host:port`; the health service defaults to the next port on the loopback.

        Raises:
            SemcError: USAGE where the host is a single outside interface: the coordinator's own programs
                reach the SuperLink over the loopback, which is where the Control API is open.
        """
        host, port = _split(address)
        if host not in (*_LOOPBACK, _EVERYWHERE):
            raise SemcError(
                ExitCode.USAGE,
                f"The coordinator cannot listen on {host} alone.",
                f"give 127.0.0.1:{port} (this machine) or {_EVERYWHERE}:{port} (and a firewall)",
            )
        health_host, health_port = _split(health_address) if health_address else (_LOOPBACK[0], port + 1)
        return cls("127.0.0.1" if host in _LOOPBACK else host, port, health_host, health_port)

    def endpoint(self) -> Endpoint:
        """Return the addresses by which this machine's programs reach the coordinator."""
        health_host = _LOOPBACK[0] if self.health_host == _EVERYWHERE else self.health_host
        return Endpoint(f"127.0.0.1:{self.port}", f"{health_host}:{self.health_port}", os.getpid())


@dataclass
class _Child:
    """One supervised process."""

    name: str
    command: Sequence[str]
    log: Path
    may_end: bool
    """Whether its end is the normal end of a run; only a failed start then counts against it."""
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0

    def start(self, environment: dict[str, str]) -> None:
        self.started = time.monotonic()
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                self.command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )

    def has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def count_failure(self) -> None:
        """Judge how it ended; an end that is no failure forgives those before."""
        assert self.process is not None
        quick = time.monotonic() - self.started < _QUICK_DEATH_SECONDS
        failed = self.process.returncode == START_FAILED if self.may_end else quick
        self.failures = self.failures + 1 if failed else 0


class Supervisor:
    """Runs a coordinator until it is told to stop.

    Args:
        home: The coordinator's home; made if absent.
        listen: Where to listen.
        names: Further names and addresses for the certificate.
    """

    def __init__(self, home: Home, listen: Listen, names: Sequence[str]) -> None:
        self._home, self._listen, self._names = home, listen, names
        self._stopping = False

    def run(self, on_ready: Callable[[Endpoint], None]) -> None:
        """Prepare the home, start both children and keep them until SIGTERM or SIGINT.

        Args:
            on_ready: Called once the SuperLink serves.

        Raises:
            SemcError: ALREADY_RUNNING, PORT_IN_USE, TLS_UNTRUSTED, DISK, or RUN_FAILED where a child keeps
                dying.
        """
        self._make_home()
        with self._home.lock("lock", wait=False):
            ensure_certificates(self._home, self._names)
            self._make_secret()
            _check_free(self._listen.host, self._listen.port)
            _check_free(self._listen.health_host, self._listen.health_port)
            endpoint = self._listen.endpoint()
            self._home.write_endpoint(endpoint)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._stop)
            children = [self._superlink(), self._executor(endpoint)]
            environment = flower_environment(self._home.flower) | {
                HOME_VARIABLE: str(self._home.root.resolve())
            }
            try:
                superlink, executor = children
                superlink.start(environment)
                self._wait_ready(superlink, endpoint)
                if not self._stopping:
                    on_ready(endpoint)
                    executor.start(environment)  # warms up while sites are enrolled
                while not self._stopping:
                    self._revive(children, environment)
                    time.sleep(0.2)
            finally:
                _end(children)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _make_home(self) -> None:
        try:
            for folder in (self._home.root, self._home.logs, self._home.runs, self._home.flower):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._home.database.touch(mode=0o600)
        except OSError as error:
            raise SemcError(
                ExitCode.DISK,
                f"The coordinator's home cannot be made ({error.strerror}).",
                "give a writable folder with --home",
            ) from error

    def _make_secret(self) -> None:
        if not self._home.secret.exists():
            write_private(self._home.secret, secrets.token_urlsafe(32).encode())

    def _superlink(self) -> _Child:
        home, listen = self._home, self._listen
        arguments = [
            *("superlink", "--host", listen.host, "--port", str(listen.port)),
            *("--ssl-ca-certfile", str(home.ca_certificate)),
            *("--ssl-certfile", str(home.server_certificate), "--ssl-keyfile", str(home.server_key)),
            *("--enable-supernode-auth", "--isolation", "process"),
            *("--superexec-auth-secret-file", str(home.secret), "--database", str(home.database)),
            *("--health-server-address", f"{listen.health_host}:{listen.health_port}"),
        ]
        command = python_module("server.superlink", *arguments)
        return _Child("superlink", command, home.logs / "superlink.log", may_end=False)

    def _executor(self, endpoint: Endpoint) -> _Child:
        home = self._home
        arguments = ("executor", endpoint.address, str(home.ca_certificate), str(home.secret))
        command = python_module("server.superlink", *arguments)
        return _Child("executor", command, home.logs / "executor.log", may_end=True)

    def _wait_ready(self, superlink: _Child, endpoint: Endpoint) -> None:
        """Wait until the SuperLink says that it serves, and its HTTPS port, opened next, is open."""
        end = time.monotonic() + _READY_SECONDS
        while not self._stopping:
            serving = ask_health(endpoint.health_address, timeout_seconds=1.0) is Health.SERVING
            if serving and _listens(self._listen.port):
                return
            if time.monotonic() > end or superlink.has_ended():
                raise SemcError(
                    ExitCode.RUN_FAILED,
                    "The SuperLink did not start.",
                    "read the end of superlink.log in the home's logs folder",
                )
            time.sleep(0.1)

    def _revive(self, children: Sequence[_Child], environment: dict[str, str]) -> None:
        """Start again what has ended.

        Raises:
            SemcError: RUN_FAILED where a child failed to start several times in a row.
        """
        for child in children:
            if not child.has_ended():
                continue
            child.count_failure()
            if child.failures >= _MOST_FAILURES:
                raise SemcError(
                    ExitCode.RUN_FAILED,
                    f"The {child.name} keeps ending.",
                    f"read the end of {child.log.name} in the home's logs folder",
                )
            child.start(environment)


def _end(children: Sequence[_Child]) -> None:
    """Stop the executor, then the SuperLink it reports to; kill what does not follow."""
    for child in reversed(children):
        process = child.process
        if process is None or process.poll() is not None:
            continue
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _split(address: str) -> tuple[str, int]:
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise SemcError(ExitCode.USAGE, f"'{address}' is not host:port.", "write it like 127.0.0.1:8000")
    return host, int(port)


def _listens(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((_LOOPBACK[0], port)) == 0


def _check_free(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SemcError(
                ExitCode.PORT_IN_USE,
                f"Port {port} is taken.",
                "stop the program that uses it, or give another with --address or --health-address",
            ) from error
