"""One hospital's link is slow, thin, cut or dead for a while: no round is lost and no bit is another."""

from __future__ import annotations

import time

import pytest

from tests.faults.bad_link import BadLink, Way
from tests.faults.conftest import Record
from tests.faults.cut import SITE, begun, reset_in_the_middle, whole
from tests.faults.federation import Federation, small_study
from tests.faults.plan import Stop

OUTAGE_SECONDS = 60.0

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


def test_a_reset_in_the_middle_of_a_download(standing: Federation, link: BadLink, record: Record) -> None:
    """That of an upload is in test_quick.py."""
    record(reset_in_the_middle(standing, link, Way.DOWN))


def test_a_delay_of_300_ms(standing: Federation, link: BadLink, record: Record) -> None:
    standing.reference(small_study(standing.names))
    link.slow(0.3)
    record(whole(standing, begun(standing), "300 ms delay each way", time.time()))


def test_a_link_of_one_megabit(standing: Federation, link: BadLink, record: Record) -> None:
    standing.reference(small_study(standing.names, federation__rounds=2))
    before = sum(link.carried.values())
    link.thin(1e6)
    run = begun(standing, federation__rounds=2)
    struck = time.time()
    run.wait(600)
    megabytes = (sum(link.carried.values()) - before) / 1e6
    record(whole(standing, run, "1 Mbit/s", struck, megabytes=megabytes))


@pytest.mark.parametrize(
    "stop",
    [
        Stop("supernode", "download", SITE),
        Stop("worker", "train", SITE, call=4),
        Stop("supernode", "upload", SITE),
    ],
    ids=lambda stop: stop.stage,
)
@pytest.mark.parametrize("kind", ["blackout", "half-open"])
def test_an_outage_of_a_minute(
    standing: Federation, link: BadLink, record: Record, stop: Stop, kind: str
) -> None:
    run = begun(standing)
    standing.plan.arm([stop])
    standing.plan.wait_stopped()
    link.black_out() if kind == "blackout" else link.half_open()
    struck = time.time()
    standing.plan.release()
    time.sleep(OUTAGE_SECONDS)
    link.heal()
    record(whole(standing, run, f"{OUTAGE_SECONDS:.0f} s {kind}, {stop.stage}", struck))
