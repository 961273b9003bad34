"""A site that is told to end while it replaces a process that does not listen ends in time, and leaves no process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from client import supernode, supervisor, worker
from client.console import Console
from client.known_key import KnownKey
from client.progress import Progress
from client.reconnection import Reconnection
from client.supernode import Sign
from client.supervisor import Supervisor
from semc.config import SiteConfig
from semc.config.site import CoordinatorConfig
from semc.exit_codes import ExitCode, SemcError

GRACE = 4.0
"""Shorter than the real one, to see two graces from one sooner."""
DEAF = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
lines = {lines!r}
while True:
    for line in lines:
        print(line, flush=True)
    time.sleep(0.3)
"""
REFUSED = "print({line!r}, flush=True)\nraise SystemExit(1)"
LEAVES = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_DFL)\ntime.sleep(60)"
PORT_TAKEN = "RuntimeError: SuperNode Runtime HTTP API failed to start."
NOT_ACTIVATED = "Failed to activate SuperNode [code: 2004]"


class Site:
    """A supervisor in a thread, over processes of a test's own."""

    def __init__(self, folder: Path, *, known: bool = True) -> None:
        coordinator = CoordinatorConfig(address="127.0.0.1:9", root_certificates=folder / "ca.crt")
        config = SiteConfig(
            site="north",
            data={"root": folder},
            coordinator=coordinator,
            state_directory=folder / "state",
            private_key=folder / "key",
        )
        self.said: list[str] = []
        self.stop = threading.Event()
        self.error: SemcError | None = None
        console = Console("north")
        console.say = self.said.append  # type: ignore[method-assign]
        key = KnownKey(folder / "run", "SHA256:x", coordinator.address)
        if known:
            key.remember()
        way_back = Reconnection(coordinator, key, console, self.stop, 0.0)
        self._supervisor = Supervisor(folder / "site.yaml", config, key, way_back, console, self.stop)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self._supervisor.run()
        except SemcError as error:
            self.error = error

    def start(self) -> None:
        self._thread.start()

    def seconds_to_end(self) -> float:
        """Tell it to end; return how long that took."""
        started = time.monotonic()
        self.stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        return time.monotonic() - started

    def wait_for_the_end(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


Start = Callable[..., Site]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a site whose processes are these programs."""
    sites: list[Site] = []
    before = {child.pid for child in psutil.Process().children()}

    def starting(worker_text: str, supernode_text: str, *, known: bool = True) -> Site:
        (tmp_path / "a_worker.py").write_text(worker_text)
        (tmp_path / "a_supernode.py").write_text(supernode_text)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(worker, "MODULE", "a_worker")
        monkeypatch.setattr(supernode, "MODULE", "a_supernode")
        sites.append(Site(tmp_path, known=known))
        sites[-1].start()
        return sites[-1]

    yield starting
    for site in sites:
        site.seconds_to_end()
    assert not {child.pid for child in psutil.Process().children()} - before, "no process is left"


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def lines(*phases: str) -> list[str]:
    return [Progress(phase).to_line().rstrip("\n") for phase in phases]


def test_one_grace_and_a_margin_fit_in_ten_seconds() -> None:
    assert supervisor.GRACE_SECONDS + 3 < 10


def test_a_stop_while_a_deaf_supernode_is_replaced_takes_one_grace(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", GRACE)
    site = start(DEAF.format(lines=lines("ready", "lost")), DEAF.format(lines=[]))
    wait_for(lambda: any("a task broke off" in text for text in site.said))
    assert site.seconds_to_end() < 1.6 * GRACE, "one grace, not what is left of the first and a second one"


def test_a_stop_while_a_deaf_worker_is_replaced_takes_one_grace(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", GRACE)
    replaced = threading.Event()
    look = Supervisor._change_port

    def noted(self: Supervisor) -> None:
        replaced.set()
        look(self)

    monkeypatch.setattr(Supervisor, "_change_port", noted)
    site = start(DEAF.format(lines=lines("ready")), REFUSED.format(line=PORT_TAKEN))
    wait_for(replaced.is_set)
    assert site.seconds_to_end() < 1.6 * GRACE


def test_without_a_stop_a_deaf_supernode_is_killed_after_its_grace_and_replaced(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 0.5)
    site = start(DEAF.format(lines=lines("ready", "lost")), DEAF.format(lines=[]))
    wait_for(lambda: sum("a task broke off" in text for text in site.said) >= 2)


@pytest.mark.parametrize("known", [True, False])
def test_a_refused_key_is_offered_again_for_minutes_where_it_was_accepted_before(
    start: Start, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    monkeypatch.setattr(supervisor, "KNOWN_KEY_SECONDS", 1.0)
    monkeypatch.setattr(supervisor, "_ACTIVATION_RETRY_SECONDS", 0.2)
    assert supernode.read_sign(NOT_ACTIVATED) is Sign.NOT_ACTIVATED
    listening = LEAVES.replace("time.sleep(60)", f"print({lines('ready')[0]!r}, flush=True)\ntime.sleep(60)")
    site = start(listening, REFUSED.format(line=NOT_ACTIVATED), known=known)
    site.wait_for_the_end()
    assert site.error is not None
    assert site.error.code is ExitCode.KEY_UNREGISTERED
    told = " ".join(site.said)
    assert ("still shows this site online" in told and "withdrawn" in told) == known
    assert ("still shows this site online" in site.error.problem) == known
    assert "withdrawn" in site.error.problem
