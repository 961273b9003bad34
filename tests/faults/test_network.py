"""One hospital's link is slow, thin, cut or dead for a while: no round is lost and no bit is another."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import yaml

from tests.faults.bad_link import BadLink, Way
from tests.faults.conftest import Record
from tests.faults.fault_row import FaultRow
from tests.faults.federation import Federation, small_study, wait_for
from tests.faults.plan import Stop
from tests.faults.study_run import StudyRun

SITE = "north"
SOME_BYTES = 400_000
"""A tenth of the weights."""
OUTAGE_SECONDS = 60.0


def dial(federation: Federation, address: str) -> None:
    """Have the hospital's client dial another address."""
    federation.rehearsal.kill(SITE)
    file = federation.site_files[SITE]
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    content["coordinator"]["address"] = address
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    federation.start_what_ended()


@pytest.fixture(scope="module")
def over_link(federation: Federation) -> Iterator[BadLink]:
    """The link between the first hospital and the coordinator."""
    with BadLink(federation.rehearsal.address) as link:
        dial(federation, link.address)
        yield link
        dial(federation, federation.rehearsal.address)


@pytest.fixture
def link(over_link: BadLink) -> Iterator[BadLink]:
    yield over_link
    over_link.heal()


def finish(
    federation: Federation, run: StudyRun, record: Record, cell: str, struck: float, **figures: float
) -> None:
    """Wait for the study's end, check it and record it."""
    run.wait(600)
    reference = federation.reference(run.study)
    run.assert_whole(reference)
    wait_for(lambda: not federation.orphans(), "orphans to end", 20)
    record(
        FaultRow(
            "network",
            cell,
            "complete, bit-equal",
            run.seconds_to_progress(struck, SITE),
            run.seconds - reference.seconds,
            figures,
        )
    )


def begun(federation: Federation, **overrides: object) -> StudyRun:
    """Start a study, its reference having run first, and wait for its second round."""
    study = small_study(federation.names, **overrides)
    federation.reference(study)
    run = federation.start(study)
    run.wait_for_event("round", round=2)
    return run


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "way",
    [
        pytest.param(Way.DOWN, marks=[pytest.mark.faults, pytest.mark.xdist_group("faults-network")]),
        pytest.param(Way.UP, marks=pytest.mark.xdist_group("faults")),
    ],
)
def test_a_reset_in_the_middle(standing: Federation, link: BadLink, record: Record, way: Way) -> None:
    run, before = begun(standing), link.resets
    link.reset_after(way, SOME_BYTES)
    wait_for(lambda: link.resets > before, "enough bytes for the reset")
    finish(standing, run, record, f"reset in the middle of the {way}", time.time())


@pytest.mark.faults
@pytest.mark.xdist_group("faults-network")
@pytest.mark.timeout(900)
def test_a_delay_of_300_ms(standing: Federation, link: BadLink, record: Record) -> None:
    link.slow(0.3)
    finish(standing, begun(standing), record, "300 ms delay each way", time.time())


@pytest.mark.faults
@pytest.mark.xdist_group("faults-network")
@pytest.mark.timeout(900)
def test_a_link_of_one_megabit(standing: Federation, link: BadLink, record: Record) -> None:
    standing.reference(small_study(standing.names, federation__rounds=2))
    before = sum(link.carried.values())
    link.thin(1e6)
    run = begun(standing, federation__rounds=2)
    struck = time.time()
    run.wait(600)
    megabytes = (sum(link.carried.values()) - before) / 1e6
    finish(standing, run, record, "1 Mbit/s", struck, megabytes=megabytes)


@pytest.mark.faults
@pytest.mark.xdist_group("faults-network")
@pytest.mark.timeout(900)
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
    finish(standing, run, record, f"{OUTAGE_SECONDS:.0f} s {kind}, {stop.stage}", struck)
