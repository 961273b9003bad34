"""A hospital leaves in order from any stage: told or killed, no process stays and the coordinator knows at once."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.live_site import Site, enrol, live_site
from tests.end_to_end.test_coordinator_up import BIN, Coordinator, start, study_file, wait_for
from tests.faults.bad_link import BadLink

pytestmark = pytest.mark.slow

THIN_BITS_PER_SECOND = 2_000_000
"""The tiny network's weights (3.7 MB) take 15 s at this rate."""


class Stage(StrEnum):
    """What the hospital does when it is told to leave."""

    IDLE = "idle"
    DOWNLOAD = "download"
    TRAINING = "training"
    UPLOAD = "upload"


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    """A coordinator of its own, which no earlier study keeps busy."""
    running = start(tmp_path / "home")
    yield running
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(30)


@contextmanager
def busy_site(coordinator: Coordinator, hospitals: Path, folder: Path, stage: Stage) -> Iterator[Site]:
    """Bring a site to a stage and keep it there."""
    with ExitStack() as stack:
        link = stack.enter_context(BadLink(coordinator.address))
        site = live_site(folder, hospitals, coordinator, link.address)
        stack.callback(site.stop)
        site.change(loader_workers=2)
        enrol(coordinator, site)
        site.start()
        wait_for(lambda: site.said("joined the coordinator") == 1, 120)
        if stage is not Stage.IDLE:
            study = study_file(folder, sites=["north"], quorum=1, rounds=1)
            steps = 1 if stage is Stage.UPLOAD else 100_000
            study.write_text(study.read_text().replace("local_steps: 2", f"local_steps: {steps}"))
            command = [str(BIN / "semc-server"), "run", str(study), "--home", str(coordinator.home.root)]
            log = stack.enter_context((folder / "run.log").open("wb"))
            run = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(run.wait, 30)
            stack.callback(run.terminate)
            reach(site, link, stage)
        yield site


def reach(site: Site, link: BadLink, stage: Stage) -> None:
    receiving = "Receiving: train"
    if stage is Stage.DOWNLOAD:
        wait_for(lambda: site.logged("supernode", "Receiving: query") == 1, 120)
        link.thin(THIN_BITS_PER_SECOND)
        wait_for(lambda: site.logged("supernode", receiving) == 1, 120)
        time.sleep(2)
        assert site.logged("supernode", "Received successfully") == 1, "the query alone"
        return
    wait_for(lambda: site.logged("supernode", "Received successfully") == 2, 120)
    if stage is Stage.UPLOAD:
        link.thin(THIN_BITS_PER_SECOND)
        wait_for(lambda: site.logged("supernode", "Sending: train") == 1, 120)
        time.sleep(2)
        assert site.logged("supernode", "Sent successfully") == 1, "the query alone"
    else:
        wait_for(lambda: len(site.family()) == 4, 120)  # the loader's two processes are there
        time.sleep(1)


def told(site: Site) -> None:
    assert site.process is not None
    site.process.send_signal(signal.SIGTERM)


def told_again_and_again(site: Site) -> None:
    """Ctrl-C at a terminal reaches every process, and an impatient hand repeats it."""
    assert site.process is not None
    everybody = [psutil.Process(site.process.pid), *site.family()]
    for _ in range(3):
        for process in everybody:
            if process.is_running():
                process.send_signal(signal.SIGINT)
        time.sleep(0.2)


def killed(site: Site) -> None:
    assert site.process is not None
    site.process.kill()


def deactivations(coordinator: Coordinator) -> int:
    return (coordinator.home.logs / "superlink.log").read_text().count("[Fleet.DeactivateNode] Deactivated")


WAYS = [told, told_again_and_again, killed]


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("way", WAYS)
def test_a_site_leaves_in_order_from_any_stage(
    coordinator: Coordinator, hospitals: Path, tmp_path: Path, stage: Stage, way: Callable[[Site], None]
) -> None:
    before = deactivations(coordinator)
    with busy_site(coordinator, hospitals, tmp_path, stage) as site:
        family = site.family()
        started = time.monotonic()
        way(site)
        assert site.process is not None
        status = site.process.wait(10)
        _, alive = psutil.wait_procs(family, timeout=max(0.1, 10 - (time.monotonic() - started)))
        print(f"{way.__name__} in {stage}: all gone after {time.monotonic() - started:.1f} s")
        assert not alive
        assert status == (-signal.SIGKILL if way is killed else 0)
        assert deactivations(coordinator) == before + 1, "the coordinator takes it back at once"


def test_a_worker_that_cannot_listen_is_killed_within_the_grace(
    coordinator: Coordinator, hospitals: Path, tmp_path: Path
) -> None:
    """A stopped process handles no SIGTERM, as one deep in a library's long computation does not."""
    with busy_site(coordinator, hospitals, tmp_path, Stage.TRAINING) as site:
        family = site.family()
        worker = site.child("client.worker")
        assert worker is not None
        worker.suspend()
        started = time.monotonic()
        told(site)
        assert site.process is not None
        assert site.process.wait(10) == 0
        _, alive = psutil.wait_procs(family, timeout=max(0.1, 10 - (time.monotonic() - started)))
        assert not alive


def test_a_coordinator_that_is_away_delays_no_end(
    coordinator: Coordinator, hospitals: Path, tmp_path: Path
) -> None:
    with BadLink(coordinator.address) as link:
        site = live_site(tmp_path, hospitals, coordinator, link.address)
        try:
            enrol(coordinator, site)
            site.start()
            wait_for(lambda: site.said("joined the coordinator") == 1, 120)
            link.half_open()
            time.sleep(8)
            family = site.family()
            started = time.monotonic()
            told(site)
            assert site.process is not None
            assert site.process.wait(10) == 0
            _, alive = psutil.wait_procs(family, timeout=max(0.1, 10 - (time.monotonic() - started)))
            assert not alive
        finally:
            site.stop()


def test_it_ends_while_it_waits_for_its_first_join(
    coordinator: Coordinator, hospitals: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        site = live_site(tmp_path, hospitals, coordinator, address)
        site.start()
        silent.settimeout(60)
        silent.accept()  # it has asked; nobody answers
        started = time.monotonic()
        told(site)
        assert site.process is not None
        assert site.process.wait(10) == 0
        assert time.monotonic() - started < 4
