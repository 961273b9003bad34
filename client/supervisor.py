"""Keeps a worker and a SuperNode alive until told to stop, and says plainly why it cannot be.

The worker starts first and stays; the SuperNode is what the coordinator sees. Shared fate: a worker that dies
while it pulls a message or pushes a reply leaves its SuperNode waiting for ever, so both are restarted. A
worker that dies in mid-training is replaced alone: the SuperNode reports the loss once the task's lease ends.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections import deque
from pathlib import Path
from typing import Final

from client import supernode, worker
from client.child import Child, rotating_log
from client.console import Console
from client.coordinator import ask, check_clock
from client.environment import SITE_FILE, flower_environment
from client.known_key import KnownKey
from client.progress import from_line
from client.supernode import Sign, read_sign
from semc.config import SiteConfig
from semc.exit_codes import ExitCode, SemcError

KNOWN_ONLINE_SECONDS: Final = 90.0
"""How long a key accepted before is offered again: after a crash the coordinator shows a site online for up
to a minute, and refuses a second one."""

_TICK_SECONDS: Final = 0.1
_GRACE_SECONDS: Final = 7.0
_WORKER_START_SECONDS: Final = 300.0
_ACTIVATION_RETRY_SECONDS: Final = 5.0
_LONGEST_RETRY_SECONDS: Final = 30.0
_MOST_CRASHES: Final = 5
_CRASH_WINDOW_SECONDS: Final = 600.0
_HALF_WAY: Final = ("pulling", "pushing")


class Supervisor:
    """The two processes of one site.

    Args:
        site_file: The hospital's YAML.
        site: Its content.
        known_key: Whether the coordinator accepted this key before.
        console: Tells the operator.
        stop: Set by a signal: end both processes.
    """

    def __init__(
        self, site_file: Path, site: SiteConfig, known_key: KnownKey, console: Console, stop: threading.Event
    ) -> None:
        self._site_file, self._site, self._known_key = site_file, site, known_key
        self._console, self._stop = console, stop
        self._port = _free_port(site.runtime_port)
        self._secret_file = _new_secret(site.state_directory / "run")
        logs = site.state_directory / "logs"
        self._worker_log = rotating_log(logs / "worker.log")
        self._supernode_log = rotating_log(logs / "supernode.log")
        self._worker: Child | None = None
        self._ready = threading.Event()
        self._stage = ""
        self._supernode: Child | None = None
        self._signs: set[Sign] = set()
        self._refused_since: float | None = None
        self._failures = 0
        self._start_supernode_at = 0.0
        self._crashes: deque[float] = deque(maxlen=_MOST_CRASHES)

    def run(self) -> None:
        """Keep both processes alive until `stop` is set.

        Raises:
            SemcError: KEY_UNREGISTERED, TLS_UNTRUSTED, CLOCK_SKEW, PORT_IN_USE; INTERNAL where a process
                keeps crashing.
        """
        try:
            self._start_worker()
            while not self._stop.wait(_TICK_SECONDS):
                self._look_after_worker()
                self._look_after_supernode()
        finally:
            self._end()

    def _start_worker(self) -> None:
        """Start the worker and wait until its libraries are loaded."""
        self._stage = ""
        self._ready.clear()
        environment = flower_environment(self._site.state_directory / "flower" / "worker")
        environment |= {SITE_FILE: str(self._site_file), "OMP_NUM_THREADS": str(self._site.threads)}
        self._worker = Child(
            worker.MODULE,
            [f"127.0.0.1:{self._port}", str(self._secret_file), str(self._site.poll_seconds)],
            environment,
            self._worker_log,
            self._read_worker,
        )
        deadline = time.monotonic() + _WORKER_START_SECONDS
        while not self._ready.wait(_TICK_SECONDS):
            if self._stop.is_set():
                return
            if self._worker.ended() is not None or time.monotonic() > deadline:
                raise SemcError(
                    ExitCode.INTERNAL,
                    "The training process does not start.",
                    "read the last lines of logs/worker.log in the state directory",
                )

    def _start_supernode(self) -> None:
        self._signs.clear()
        self._supernode = Child(
            supernode.MODULE,
            [
                str(self._site.poll_seconds),
                *supernode.arguments(self._site, self._port, self._secret_file),
            ],
            flower_environment(self._site.state_directory / "flower" / "supernode"),
            self._supernode_log,
            self._read_supernode,
        )

    def _read_worker(self, line: str) -> bool:
        progress = from_line(line)
        if progress is None:
            return False
        if progress.phase == "ready":
            self._ready.set()
        if progress.phase in ("idle", "working", *_HALF_WAY):
            self._stage = progress.phase
        self._console.show(progress)
        return True

    def _read_supernode(self, line: str) -> bool:
        sign = read_sign(line)
        if sign is None or sign in self._signs:
            return False
        self._signs.add(sign)
        if sign is Sign.JOINED:
            self._refused_since, self._failures = None, 0
            self._known_key.remember()
            self._console.say("joined the coordinator")
            self._console.now("waiting for the coordinator")
        elif sign is Sign.RETRYING:
            self._console.now("the coordinator does not answer; trying again")
        return False

    def _look_after_worker(self) -> None:
        """Replace a worker that ended; its SuperNode too, where that waits for ever otherwise."""
        assert self._worker is not None
        status = self._worker.ended()
        if status is None:
            return
        if status != 0:
            self._count_crash("training")
            self._console.say(f"the training process ended (status {status}); starting it again")
        if self._stage in _HALF_WAY and self._supernode is not None:
            self._supernode.end(_GRACE_SECONDS)
            self._supernode = None
        self._start_worker()

    def _look_after_supernode(self) -> None:
        """Start the SuperNode when it is due, and decide what its end means."""
        if self._supernode is None:
            if time.monotonic() >= self._start_supernode_at:
                self._start_supernode()
            return
        if self._supernode.ended() is None:
            return
        self._supernode = None
        if Sign.PORT_TAKEN in self._signs:
            self._change_port()
        elif Sign.NOT_ACTIVATED in self._signs:
            self._not_activated()
        else:
            self._lost()

    def _not_activated(self) -> None:
        """Offer a key again that was accepted before; give up on one that never was."""
        now = time.monotonic()
        self._refused_since = self._refused_since or now
        if not self._known_key.is_known or now - self._refused_since > KNOWN_ONLINE_SECONDS:
            raise SemcError(
                ExitCode.KEY_UNREGISTERED,
                "The coordinator does not know this site's key, or has withdrawn it.",
                f"send the public key: semc-server enrol {self._site.site} --public-key FILE",
            )
        self._console.say("the coordinator still shows this site online; trying again for up to 90 s")
        self._start_supernode_at = now + _ACTIVATION_RETRY_SECONDS

    def _lost(self) -> None:
        """Find out why the SuperNode ended, and start it again where that can help."""
        assert self._site.coordinator is not None
        if Sign.JOINED not in self._signs:
            self._count_crash("network")
        try:
            check_clock(ask(self._site.coordinator))
        except SemcError as error:
            if error.code is not ExitCode.SERVER_UNREACHABLE:
                raise
        self._failures += 1
        wait = min(2.0**self._failures, _LONGEST_RETRY_SECONDS)
        self._console.say(f"lost the coordinator; joining again in {wait:.0f} s")
        self._start_supernode_at = time.monotonic() + wait

    def _change_port(self) -> None:
        """Take another loopback port where someone was faster; the worker must know it too."""
        self._count_crash("network")
        assert self._worker is not None
        self._worker.end(_GRACE_SECONDS)
        self._port = _free_port(0)
        self._start_worker()

    def _count_crash(self, kind: str) -> None:
        now = time.monotonic()
        self._crashes.append(now)
        if len(self._crashes) == _MOST_CRASHES and now - self._crashes[0] < _CRASH_WINDOW_SECONDS:
            raise SemcError(
                ExitCode.INTERNAL,
                f"The {kind} process keeps ending ({_MOST_CRASHES} times within ten minutes).",
                "read the last lines of worker.log and supernode.log in the state directory's logs folder",
            )

    def _end(self) -> None:
        """End both processes within the grace, together."""
        children = [child for child in (self._supernode, self._worker) if child is not None]
        deadline = time.monotonic() + _GRACE_SECONDS
        for child in children:
            child.ask_to_end()
        for child in children:
            child.end(max(0.0, deadline - time.monotonic()))
        for log in (self._worker_log, self._supernode_log):
            log.close()
        logging.shutdown()


def _free_port(wanted: int) -> int:
    """Return the wanted loopback port, or any free one where it is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SemcError(ExitCode.PORT_IN_USE, "No loopback port is free.", "end programs that listen on ports")


def _new_secret(folder: Path) -> Path:
    """Write a fresh secret that only this site's two processes share."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "secret"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(secrets.token_bytes(32))
    return path
