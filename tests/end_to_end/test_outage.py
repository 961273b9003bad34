"""A coordinator that is away for longer than a site counts as online: nobody gives up, nobody has to help."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.live_site import Site, enrol, live_site
from tests.end_to_end.outage import start_again, stop
from tests.end_to_end.test_coordinator_up import Coordinator, start, wait_for

pytestmark = pytest.mark.slow

OUTAGE_SECONDS = 75.0
"""Longer than the 60 s for which a coordinator shows a silent site as online."""


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    running = start(tmp_path_factory.mktemp("coordinator") / "home")
    yield running
    stop(running)


@pytest.fixture(scope="module")
def site(
    coordinator: Coordinator, hospitals: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    running = live_site(tmp_path_factory.mktemp("site"), hospitals, coordinator)
    enrol(coordinator, running)
    running.start()
    wait_for(lambda: running.said("joined the coordinator") == 1, 120)
    yield running
    running.stop()


def test_a_running_client_rides_out_a_long_outage(coordinator: Coordinator, site: Site) -> None:
    worker = site.child("client.worker")
    assert worker is not None
    stop(coordinator)
    time.sleep(OUTAGE_SECONDS)
    assert site.process is not None
    assert site.process.poll() is None
    assert site.said("does not answer") == 1, "said once, not at every try"
    start_again(coordinator)
    back = time.monotonic()
    wait_for(
        lambda: site.said("the coordinator answers again") + site.said("joined the coordinator") == 2, 90
    )
    print(f"outage of {OUTAGE_SECONDS:.0f} s: met again {time.monotonic() - back:.1f} s after its end")
    assert worker.is_running(), "the training process stays"


def test_a_client_started_in_an_outage_waits_for_the_coordinator_that_knows_it(
    coordinator: Coordinator, site: Site
) -> None:
    joined = site.said("joined the coordinator")
    stop(coordinator)
    site.stop()
    site.start()
    time.sleep(OUTAGE_SECONDS)
    assert site.process is not None
    assert site.process.poll() is None
    assert site.said("waiting for as long as it takes") == 1
    start_again(coordinator)
    back = time.monotonic()
    wait_for(lambda: site.said("joined the coordinator") > joined, 120)
    print(f"started in an outage: joined {time.monotonic() - back:.1f} s after its end")
