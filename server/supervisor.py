"""`semc-server up`: SuperLink and executor as child processes, restarted when they end.

The executor ends after each run and is started again, warm for the next one. A SuperLink that dies is back
within seconds and continues from its database. A run whose round loop died with its executor is brought back. A
child that keeps dying at once ends the coordinator with a number instead of a loop. The children cannot outlive this
process.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

from semc.exit_codes import ExitCode, SemcError
from semc.flower_version import check_flower_version
from server.child import Child
from server.health import Health, ask_health
from server.home import HOME_VARIABLE, Endpoint, Home
from server.listen import Listen, check_free, listens
from server.process import flower_environment, python_module
from server.run_keeper import RunKeeper
from server.tls import ensure_certificates, write_private

_SUPERLINK: Final = "superlink"
_READY_SECONDS: Final = 60.0
_MOST_FAILURES: Final = 3


class Supervisor:
    """Runs a coordinator until it is told to stop.

    Args:
        home: The coordinator's home; made if absent.
        listen: Where to listen.
        names: Further names and addresses for the certificate.
        resume: Go on with runs that were interrupted before; else they wait for `semc-server resume`.
    """

    def __init__(self, home: Home, listen: Listen, names: Sequence[str], *, resume: bool = False) -> None:
        self._home, self._listen, self._names, self._resume = home, listen, names, resume
        self._keeper = RunKeeper(home)
        self._stopping = False

    def run(self, on_ready: Callable[[Endpoint, Sequence[str]], None]) -> None:
        """Prepare the home, start both children and keep them until SIGTERM or SIGINT.

        Args:
            on_ready: Called once the SuperLink serves, with the interrupted runs that nobody goes on with.

        Raises:
            SemcError: VERSION_MISMATCH, ALREADY_RUNNING, PORT_IN_USE, TLS_UNTRUSTED, DISK, or RUN_FAILED
                where a child keeps dying.
        """
        check_flower_version()
        self._make_home()
        with self._home.lock("lock", wait=False):
            ensure_certificates(self._home, self._names)
            self._make_secret()
            check_free(self._listen.host, self._listen.port)
            check_free(self._listen.health_host, self._listen.health_port)
            endpoint = self._listen.endpoint()
            self._home.write_endpoint(endpoint)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._stop)
            superlink, executor = self._superlink(), self._executor(endpoint)
            environment = flower_environment(self._home.flower) | {
                HOME_VARIABLE: str(self._home.root.resolve())
            }
            try:
                self._home.note_superlink_start()
                superlink.start(environment)
                self._wait_ready(superlink, endpoint)
                if not self._stopping:
                    on_ready(endpoint, [] if self._resume else self._keeper.leave_alone())
                    executor.start(environment)  # warms up while sites are enrolled
                while not self._stopping:
                    self._revive((superlink, executor), environment)
                    self._keeper.tick()
                    time.sleep(0.2)
            finally:
                executor.end()  # it reports the end of a run to the SuperLink
                superlink.end()

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

    def _superlink(self) -> Child:
        home, listen = self._home, self._listen
        arguments = [
            *(str(os.getpid()), "superlink", "--host", listen.host, "--port", str(listen.port)),
            *("--ssl-ca-certfile", str(home.ca_certificate)),
            *("--ssl-certfile", str(home.server_certificate), "--ssl-keyfile", str(home.server_key)),
            *("--enable-supernode-auth", "--isolation", "process"),
            *("--superexec-auth-secret-file", str(home.secret), "--database", str(home.database)),
            *("--health-server-address", f"{listen.health_host}:{listen.health_port}"),
        ]
        command = python_module("server.superlink", *arguments)
        return Child(_SUPERLINK, command, home.logs / "superlink.log", may_end=False)

    def _executor(self, endpoint: Endpoint) -> Child:
        home = self._home
        arguments = (str(os.getpid()), "executor", endpoint.address)
        files = (str(home.ca_certificate), str(home.secret))
        command = python_module("server.superlink", *arguments, *files)
        return Child("executor", command, home.logs / "executor.log", may_end=True)

    def _wait_ready(self, superlink: Child, endpoint: Endpoint) -> None:
        """Wait until the SuperLink says that it serves, and its HTTPS port, opened next, is open."""
        end = time.monotonic() + _READY_SECONDS
        while not self._stopping:
            serving = ask_health(endpoint.health_address, timeout_seconds=1.0) is Health.SERVING
            if serving and listens(self._listen.port):
                return
            if time.monotonic() > end or superlink.has_ended():
                raise SemcError(
                    ExitCode.RUN_FAILED,
                    "The SuperLink did not start.",
                    "read the end of superlink.log in the home's logs folder",
                )
            time.sleep(0.1)

    def _revive(self, children: Sequence[Child], environment: dict[str, str]) -> None:
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
            if child.name == _SUPERLINK:
                self._home.note_superlink_start()
            child.start(environment)
            self._keeper.look_soon()
