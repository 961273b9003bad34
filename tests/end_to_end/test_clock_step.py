"""The clock of a hospital's machine jumps while its client runs: real processes, a real coordinator, a real refusal."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from semc.exit_codes import ExitCode
from tests.end_to_end.live_site import Site, enrol, live_site
from tests.end_to_end.shifted_clock import ShiftedClock
from tests.end_to_end.test_coordinator_up import Coordinator, start, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or not ShiftedClock.is_possible(), reason="needs Linux and a C compiler"
    ),
]

YEAR_SECONDS = 366 * 86_400


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    running = start(tmp_path_factory.mktemp("coordinator") / "home")
    yield running
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(30)


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> ShiftedClock:
    return ShiftedClock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def site(
    coordinator: Coordinator, hospitals: Path, clock: ShiftedClock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    running = live_site(tmp_path_factory.mktemp("site"), hospitals, coordinator)
    enrol(coordinator, running)
    yield running
    running.stop()


def test_the_library_moves_the_time_of_day_and_nothing_else(clock: ShiftedClock) -> None:
    clock.shift(YEAR_SECONDS)
    code = "import time; print(time.time(), time.monotonic())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=clock.environment(), capture_output=True, text=True, check=True
    )
    wall, steady = map(float, done.stdout.split())
    assert abs(wall - time.time() - YEAR_SECONDS) < 30
    assert abs(steady - time.monotonic()) < 30
    clock.shift(0)


def test_before_the_first_join_a_wrong_clock_ends_it(site: Site, clock: ShiftedClock) -> None:
    clock.shift(60)
    site.start(clock.environment())
    assert site.process is not None
    assert site.process.wait(60) == ExitCode.CLOCK_SKEW
    assert site.said("s ahead of the coordinator's") == 1
    clock.shift(0)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (60, "s ahead of the coordinator's"),
        (-1200, "certificate is not yet valid"),
        (YEAR_SECONDS, "certificate has expired"),
    ],
)
def test_a_step_is_told_waited_for_and_survived(
    site: Site, clock: ShiftedClock, step: int, words: str
) -> None:
    if site.process is None or site.process.poll() is not None:
        site.start(clock.environment())
        wait_for(lambda: site.said("joined the coordinator") >= 1, 120)
    joined, said = site.said("joined the coordinator"), site.said(words)
    worker = site.child("client.worker")
    assert worker is not None
    try:
        clock.shift(step)
        wait_for(lambda: site.said(words) > said, 120)
        time.sleep(10)
        assert site.process is not None
        assert site.process.poll() is None, "it goes on"
        assert site.said(words) == said + 1, "said once, not at every try"
    finally:
        clock.shift(0)
    right = time.monotonic()
    wait_for(lambda: site.said("joined the coordinator") > joined, 120)
    print(f"step of {step} s: joined again {time.monotonic() - right:.1f} s after the clock was right")
    assert worker.is_running(), "the training process stays"


def test_a_clock_that_is_off_delays_no_end(site: Site, clock: ShiftedClock) -> None:
    said = site.said("s ahead of the coordinator's")
    clock.shift(60)
    wait_for(lambda: site.said("s ahead of the coordinator's") > said, 120)
    assert site.process is not None
    started = time.monotonic()
    site.process.send_signal(signal.SIGTERM)
    assert site.process.wait(10) == 0
    assert time.monotonic() - started < 10
