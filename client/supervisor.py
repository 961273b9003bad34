"""Keeps a worker and a SuperNode alive until told to stop, and says plainly why it cannot be.

The worker starts first and stays; the SuperNode is what the coordinator sees. Shared fate: a message in hand is lost
with either of them, and the coordinator learns of it only from a SuperNode that leaves and joins anew (it then sends
the message again in the same round). So a SuperNode is ended, in order, with a worker that died with a message in
hand, with a task that broke in the middle, and with a download or an upload it gave up. An idle worker is replaced
alone.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Final

from client.console import Console
from client.crash_count import CrashCount
from client.disk_trouble import DiskTrouble
from client.known_key import KnownKey
from client.log_file import LogFile
from client.loopback_port import free_port
from client.reconnection import Reconnection
from client.shared_secret import new_secret
from client.supernode import Sign
from client.supernode_process import SupernodeProcess
from client.worker_process import WorkerProcess
from semc.config import SiteConfig
from semc.exit_codes import ExitCode, SemcError

KNOWN_KEY_SECONDS: Final = 300.0
"""How long a key accepted before is offered again: after a crash the coordinator shows a site online for up to a
minute, longer by as much as its clock was set back meanwhile, and refuses a second one. A withdrawn key is refused in
the same words."""
GRACE_SECONDS: Final = 6.0
"""How long a child may take to end; then it is killed."""

_TICK_SECONDS: Final = 0.1
_ACTIVATION_RETRY_SECONDS: Final = 5.0
_WORKER_RETRY_SECONDS: Final = 1.0


class Supervisor:
    """The two processes of one site.

    Args:
        site_file: The hospital's YAML.
        site: Its content.
        known_key: Whether the coordinator accepted this key before.
        way_back: Waits for the coordinator.
        console: Tells the operator.
        stop: Set by a signal: end both processes.

    Raises:
        SemcError: PORT_IN_USE, DISK.
    """

    def __init__(
        self,
        site_file: Path,
        site: SiteConfig,
        known_key: KnownKey,
        way_back: Reconnection,
        console: Console,
        stop: threading.Event,
    ) -> None:
        self._site, self._known_key, self._way_back = site, known_key, way_back
        self._console, self._stop = console, stop
        self._port = free_port(site.runtime_port)
        self._secret_file = new_secret(site.state_directory / "run")
        self._disk = DiskTrouble(console.say)
        logs = site.state_directory / "logs"
        self._worker_log = LogFile(logs / "worker.log", self._disk)
        self._supernode_log = LogFile(logs / "supernode.log", self._disk)
        self._worker = WorkerProcess(site_file, site, self._secret_file, self._worker_log, console)
        self._supernode: SupernodeProcess | None = None
        self._start_supernode_at = 0.0
        self._has_joined = False
        self._outage_said = self._loss_said = False
        self._refused_since: float | None = None
        self._crashes = CrashCount()
        self._answers = 0

    def run(self) -> None:
        """Keep both processes alive until `stop` is set.

        Raises:
            SemcError: KEY_UNREGISTERED, PORT_IN_USE; TLS_UNTRUSTED, CLOCK_SKEW or SERVER_UNREACHABLE before the
                first join; INTERNAL where a process keeps crashing.
        """
        try:
            self._worker.start(self._port, self._stop)
            while not self._stop.wait(_TICK_SECONDS):
                self._look_after_worker()
                self._look_after_supernode()
        finally:
            self._end()

    def _look_after_worker(self) -> None:
        """Replace a worker that ended; its SuperNode too, where that has lost a message with it."""
        if self._worker.answers != self._answers:
            self._answers = self._worker.answers
            self._crashes.forget()
        status = self._worker.ended()
        if status is not None:
            leaving = self._supernode if self._worker.has_task else None
            if leaving is not None:
                leaving.ask_to_end()  # it leaves while the new worker starts
            if status != 0:
                self._crashes.add("training")
                self._console.say(f"the training process ended (status {status}); starting it again")
            self._restart_worker()
            if leaving is not None:
                self._restart_supernode(leaving)
        elif self._worker.lost_task.is_set():
            self._worker.lost_task.clear()
            if self._supernode is not None:
                self._console.say("a task broke off; joining again, so that the coordinator sends it again")
                self._restart_supernode(self._supernode)

    def _restart_worker(self) -> None:
        while not self._stop.is_set():
            try:
                self._worker.start(self._port, self._stop)
            except SemcError:
                self._crashes.add("training")
                self._stop.wait(_WORKER_RETRY_SECONDS)
            else:
                return

    def _restart_supernode(self, leaving: SupernodeProcess) -> None:
        """End a SuperNode in order, so that the coordinator takes the next one at once."""
        if not self._has_left(leaving):
            return
        self._supernode = None
        self._start_supernode_at = time.monotonic()

    def _look_after_supernode(self) -> None:
        """Start the SuperNode when it is due, and act on what its log and its end mean."""
        supernode = self._supernode
        if supernode is None:
            if time.monotonic() >= self._start_supernode_at:
                self._has_joined = self._outage_said = False
                self._worker.lost_task.clear()
                self._supernode = SupernodeProcess(
                    self._site, self._port, self._secret_file, self._supernode_log
                )
            return
        status = supernode.ended()
        if supernode.has_shown(Sign.JOINED) and not self._has_joined:
            self._joined()
        if status is None:
            self._listen(supernode)
            return
        self._supernode = None
        if supernode.has_shown(Sign.PORT_TAKEN):
            self._change_port()
        elif supernode.has_shown(Sign.NOT_ACTIVATED):
            self._not_activated()
        else:
            self._lost(supernode, status)

    def _joined(self) -> None:
        self._has_joined, self._loss_said, self._refused_since = True, False, None
        self._way_back.joined()
        try:
            self._known_key.remember()
        except OSError as error:
            self._disk.met(error)
        self._console.say("joined the coordinator")
        self._console.now("waiting for the coordinator")

    def _listen(self, supernode: SupernodeProcess) -> None:
        """Tell of an outage and of its end; join again where a message was lost on the way."""
        if supernode.has_shown(Sign.MESSAGE_LOST):
            self._console.say(
                "a message was lost on the way; joining again, so that the coordinator sends it again"
            )
            self._restart_supernode(supernode)
        elif supernode.coordinator_is_away != self._outage_said:
            self._outage_said = not self._outage_said
            if self._outage_said:
                self._console.say("the coordinator does not answer; trying again for as long as it takes")
                self._console.now("the coordinator does not answer; trying again")
            else:
                self._console.say("the coordinator answers again")

    def _not_activated(self) -> None:
        """Offer a key again that was accepted before; give up on one that never was, or not for minutes.

        Raises:
            SemcError: KEY_UNREGISTERED.
        """
        now = time.monotonic()
        first = self._refused_since is None
        self._refused_since = now if self._refused_since is None else self._refused_since
        enrol = f"semc-server enrol {self._site.site} --public-key FILE"
        if not self._known_key.is_known:
            raise SemcError(
                ExitCode.KEY_UNREGISTERED,
                "The coordinator does not know this site's key, or has withdrawn it.",
                f"send the public key: {enrol}",
            )
        if now - self._refused_since > KNOWN_KEY_SECONDS:
            raise SemcError(
                ExitCode.KEY_UNREGISTERED,
                f"For {KNOWN_KEY_SECONDS:.0f} s the coordinator has refused this site's key, which it accepted "
                "before: it has withdrawn the key, or still shows this site online.",
                f"ask the coordinator which; a withdrawn key is taken again with {enrol}, a site still shown online "
                "(its clock was set back?) can start again later",
            )
        if first:
            self._console.say(
                "the coordinator refuses this site's key: it still shows this site online after a crash, or has "
                f"withdrawn the key; trying again for up to {KNOWN_KEY_SECONDS:.0f} s"
            )
        self._start_supernode_at = now + _ACTIVATION_RETRY_SECONDS

    def _lost(self, supernode: SupernodeProcess, status: int) -> None:
        """Wait for what is in the way of a SuperNode that ended, and start it again."""
        self._refused_since = None
        turned_away = status == 0 or supernode.has_shown(Sign.NOT_CONNECTED)
        if not self._has_joined and not (turned_away and self._known_key.is_known):
            self._crashes.add("network")
        if not self._loss_said:
            self._loss_said = True
            self._console.say("lost the coordinator; joining again")
        self._way_back.wait()
        self._start_supernode_at = time.monotonic() + self._way_back.next_wait()

    def _change_port(self) -> None:
        """Take another loopback port where someone was faster; the worker must know it too."""
        self._crashes.add("network")
        if not self._has_left(self._worker):
            return
        self._port = free_port(0)
        self._restart_worker()

    def _has_left(self, child: SupernodeProcess | WorkerProcess) -> bool:
        """End a process within the grace; False where this program is told to end, which has one grace for both."""
        child.ask_to_end()
        deadline = time.monotonic() + GRACE_SECONDS
        while child.ended() is None and time.monotonic() < deadline:
            if self._stop.wait(_TICK_SECONDS):
                return False
        child.end(0.0)
        return True

    def _end(self) -> None:
        """End both processes within the grace, together."""
        children = [child for child in (self._supernode, self._worker) if child is not None]
        deadline = time.monotonic() + GRACE_SECONDS
        for child in children:
            child.ask_to_end()
        for child in children:
            child.end(max(0.0, deadline - time.monotonic()))
        for log in (self._worker_log, self._supernode_log):
            log.close()
        logging.shutdown()
