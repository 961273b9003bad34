"""The way back to a coordinator: real TLS servers that are away, late, of another time or of another authority."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from client import backoff
from client.backoff import LONGEST_WAIT_SECONDS, Backoff
from client.console import Console
from client.known_key import KnownKey
from client.reconnection import Reconnection
from semc.config.site import CoordinatorConfig
from semc.exit_codes import ExitCode, SemcError
from simulation.rehearsal import free_port
from tests.client.loopback_tls import Authority, https_server


class Attempt:
    """A wait of a site for one coordinator, in a thread."""

    def __init__(self, folder: Path, address: str, ca: Path, *, known: bool, seconds: float = 0.0) -> None:
        key = KnownKey(folder / "run", "SHA256:x", address)
        if known:
            key.remember()
        self.stop = threading.Event()
        coordinator = CoordinatorConfig(address=address, root_certificates=ca)
        self.way_back = Reconnection(coordinator, key, Console("north"), self.stop, seconds)
        self.error: SemcError | None = None
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        try:
            self.way_back.wait()
        except SemcError as error:
            self.error = error

    def is_over(self, within: float) -> bool:
        self._thread.join(within)
        return not self._thread.is_alive()


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with a tenth of a second, so that a test sees several tries."""
    monkeypatch.setattr(backoff, "_FIRST_WAIT_SECONDS", 0.1)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ca")


def shifted(seconds: float) -> str:
    """Return the HTTP date of a coordinator against which this machine's clock is ahead by so much."""
    return format_datetime(datetime.now(UTC) - timedelta(seconds=seconds), usegmt=True)


def test_waits_double_up_to_half_a_minute_and_no_two_sites_wait_alike() -> None:
    whole = [1, 2, 4, 8, 16, 30, 30]
    many = [Backoff() for _ in range(32)]
    for expected in whole:
        waits = [one.next_wait() for one in many]
        assert all(expected / 2 <= wait <= expected for wait in waits)
        assert max(waits) - min(waits) > expected / 4, "spread"
        assert len(set(waits)) == len(waits)
    many[0].reset()
    assert many[0].next_wait() <= 1
    for _ in range(2000):
        assert many[1].next_wait() <= LONGEST_WAIT_SECONDS


@pytest.mark.usefixtures("short_waits")
def test_a_coordinator_that_never_took_this_site_is_waited_for_as_long_as_was_said(
    authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt = Attempt(tmp_path, f"127.0.0.1:{free_port()}", authority.file, known=False, seconds=1.0)
    assert attempt.is_over(10)
    assert attempt.error is not None
    assert attempt.error.code is ExitCode.SERVER_UNREACHABLE
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, "once, not for every try"
    assert "does not answer" in said[0]
    assert "trying for 1 s" in said[0]


@pytest.mark.usefixtures("short_waits")
def test_a_coordinator_that_took_this_site_before_is_waited_for_without_limit(
    authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    attempt = Attempt(tmp_path, f"127.0.0.1:{port}", authority.file, known=True, seconds=0.0)
    assert not attempt.is_over(0.7), "though no time was given"
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "for as long as it takes" in said[0]
    with https_server(authority.server_context(), port=port):
        assert attempt.is_over(10)
    assert attempt.error is None


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("ahead", [20.0, -400.0])
def test_a_clock_that_is_off_ends_the_first_join_and_is_waited_for_later(
    authority: Authority, tmp_path: Path, ahead: float, capsys: pytest.CaptureFixture[str]
) -> None:
    with https_server(authority.server_context(), date=lambda: shifted(offset[0])) as address:
        offset = [ahead]
        first = Attempt(tmp_path / "first", address, authority.file, known=False, seconds=60.0)
        assert first.is_over(10)
        assert first.error is not None
        assert first.error.code is ExitCode.CLOCK_SKEW
        later = Attempt(tmp_path / "later", address, authority.file, known=True)
        assert not later.is_over(0.7)
        offset[0] = 0.0
        assert later.is_over(10), "it goes on once the clock is right"
        assert later.error is None
    [line] = capsys.readouterr().err.splitlines()
    assert f"clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'}" in line
    assert "synchronise" in line


@pytest.mark.usefixtures("short_waits")
def test_an_expired_certificate_is_waited_for_once_the_site_was_accepted(
    authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    with https_server(authority.server_context(days=-1), port=port) as address:
        first = Attempt(tmp_path / "first", address, authority.file, known=False, seconds=60.0)
        assert first.is_over(10)
        assert first.error is not None
        assert first.error.code is ExitCode.TLS_UNTRUSTED
        later = Attempt(tmp_path / "later", address, authority.file, known=True)
        assert not later.is_over(0.7)
        assert "expired" in capsys.readouterr().err
    with https_server(authority.server_context(days=30), port=port):
        assert later.is_over(15)
    assert later.error is None


def test_a_coordinator_that_accepts_and_says_nothing_delays_no_end(
    authority: Authority, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        attempt = Attempt(tmp_path, address, authority.file, known=True)
        assert not attempt.is_over(0.5)
        asked = time.monotonic()
        attempt.stop.set()
        assert attempt.is_over(3)
        assert time.monotonic() - asked < 2, "less than the connection's own patience of 5 s"


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_the_time_of_day_changes_no_wait(
    authority: Authority, tmp_path: Path, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[[], float] = time.time
    attempt = Attempt(tmp_path, f"127.0.0.1:{free_port()}", authority.file, known=False, seconds=1.5)
    time.sleep(0.3)
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    started = time.monotonic()
    assert attempt.is_over(15)
    assert 0.5 < time.monotonic() - started < 10
