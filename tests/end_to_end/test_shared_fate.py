"""A message in hand is lost with the worker or the SuperNode: both leave, in order, and join again at once."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.end_to_end.live_site import Site, enrol, live_site
from tests.end_to_end.test_coordinator_up import BIN, Coordinator, start, study_file, wait_for


@contextmanager
def federation(folder: Path, hospitals: Path) -> Iterator[tuple[Coordinator, Site]]:
    coordinator = start(folder / "home")
    site = live_site(folder, hospitals, coordinator)
    try:
        enrol(coordinator, site)
        site.start()
        wait_for(lambda: site.said("joined the coordinator") == 1)
        yield coordinator, site
    finally:
        site.stop()
        coordinator.process.send_signal(signal.SIGTERM)
        coordinator.process.wait(30)


@contextmanager
def training(coordinator: Coordinator, site: Site, folder: Path) -> Iterator[None]:
    """Have the site train for as long as the block."""
    study = study_file(folder, sites=["north"], quorum=1, rounds=1)
    study.write_text(study.read_text().replace("local_steps: 2", "local_steps: 100000"))
    command = [str(BIN / "semc-server"), "run", str(study), "--home", str(coordinator.home.root)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: site.logged("supernode", "Receiving: train") == 1)
        received = site.logged("supernode", "Receiving: ")
        wait_for(lambda: site.logged("supernode", "Received successfully") == received)
        time.sleep(2)
        yield
    finally:
        run.terminate()
        run.wait(20)


def test_a_worker_killed_in_mid_training_takes_its_supernode_with_it(hospitals: Path, tmp_path: Path) -> None:
    with federation(tmp_path, hospitals) as (coordinator, site), training(coordinator, site, tmp_path):
        worker, supernode = site.child("client.worker"), site.child("client.supernode")
        assert worker is not None
        assert supernode is not None
        killed = time.monotonic()
        worker.kill()
        wait_for(lambda: site.said("joined the coordinator") == 2, 30)
        print(f"killed worker: joined again after {time.monotonic() - killed:.1f} s")
        assert not supernode.is_running()
        assert site.said("still shows this site online") == 0, "the SuperNode left in order"
        assert site.logged("supernode", "SuperNode terminated gracefully") == 1
