"""The real `semc-client` against the real coordinator: who may join, what dies with whom, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from semc.exit_codes import ExitCode
from tests.end_to_end.live_site import Site, live_site
from tests.end_to_end.outage import start_again, stop
from tests.end_to_end.test_coordinator_up import BIN, Coordinator, run, start, study_file, wait_for


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
    yield running
    running.stop()


def test_a_key_nobody_enrolled_is_told_at_once(coordinator: Coordinator, site: Site) -> None:
    done = run("semc-client", "--site", str(site.file))
    assert done.returncode == ExitCode.KEY_UNREGISTERED
    assert done.stderr.splitlines()[-1].startswith("error 42 KEY_UNREGISTERED: ")
    assert "semc-server enrol north" in done.stderr


def test_an_enrolled_site_joins_with_one_worker_and_one_supernode(
    coordinator: Coordinator, site: Site
) -> None:
    images = ("--images", "20")
    key = site.folder / "site.key.pub"
    assert coordinator.command("enrol", "north", "--public-key", str(key), *images).returncode == 0
    site.start()
    wait_for(lambda: site.said("joined the coordinator") == 1)
    assert site.process is not None
    assert len(psutil.Process(site.process.pid).children(recursive=True)) == 2
    secret = (site.folder / "state" / "run" / "secret").read_bytes()
    for child in psutil.Process(site.process.pid).children():
        assert secret not in " ".join(child.cmdline()).encode()
        assert "site.key" not in " ".join(child.cmdline()) or "client.supernode" in child.cmdline()
    second = run("semc-client", "--site", str(site.file))
    assert second.returncode == ExitCode.ALREADY_RUNNING


def test_a_killed_worker_is_replaced_and_its_supernode_stays(site: Site) -> None:
    worker, supernode = site.child("client.worker"), site.child("client.supernode")
    assert worker is not None
    assert supernode is not None
    worker.kill()
    wait_for(lambda: (new := site.child("client.worker")) is not None and new.pid != worker.pid)
    assert supernode.is_running()
    assert site.said("the training process ended (status -9)") == 1


@pytest.mark.slow
def test_a_worker_killed_in_mid_training_takes_its_supernode_with_it(
    coordinator: Coordinator, site: Site, tmp_path: Path
) -> None:
    """The coordinator sees the site leave and join again, and knows that the message in hand is lost."""
    study = study_file(tmp_path, sites=["north"], quorum=1, rounds=1)
    study.write_text(study.read_text().replace("local_steps: 2", "local_steps: 100000"))
    command = [str(BIN / "semc-server"), "run", str(study), "--home", str(coordinator.home.root)]
    follower = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: site.logged("supernode", "Received successfully") == 2)  # the query, then the round
        worker, supernode = site.child("client.worker"), site.child("client.supernode")
        assert worker is not None
        assert supernode is not None
        joined = site.said("joined the coordinator")
        killed = time.monotonic()
        worker.kill()
        wait_for(lambda: site.said("joined the coordinator") > joined)
        print(f"worker killed: joined again after {time.monotonic() - killed:.1f} s")
        assert not supernode.is_running()
        assert site.said("still shows this site online") == 0, "the SuperNode left in order"
    finally:
        follower.terminate()
        follower.wait(20)


@pytest.mark.slow
def test_a_coordinator_that_was_away_is_met_again(coordinator: Coordinator, site: Site) -> None:
    supernode = site.child("client.supernode")
    assert supernode is not None
    answered = site.logged("supernode", "Connection successful after")
    joined = site.said("joined the coordinator")
    stop(coordinator)
    start_again(coordinator)
    wait_for(
        lambda: (
            site.logged("supernode", "Connection successful after") > answered
            or site.said("joined the coordinator") > joined
        )
    )
    assert site.process is not None
    assert site.process.poll() is None


@pytest.mark.slow
def test_a_killed_supernode_is_replaced_though_the_coordinator_shows_it_online(site: Site) -> None:
    supernode = site.child("client.supernode")
    assert supernode is not None
    joined = site.said("joined the coordinator")
    supernode.kill()
    wait_for(lambda: site.said("still shows this site online") >= 1, 60)
    wait_for(lambda: site.said("joined the coordinator") > joined, 100)


@pytest.mark.slow
def test_a_killed_supervisor_leaves_no_orphan_and_the_site_comes_back(site: Site) -> None:
    assert site.process is not None
    children = psutil.Process(site.process.pid).children(recursive=True)
    joined = site.said("joined the coordinator")
    site.process.kill()
    site.process.wait()
    _, alive = psutil.wait_procs(children, timeout=15)
    assert not alive
    site.start()
    wait_for(lambda: site.said("joined the coordinator") > joined, 100)


def test_sigterm_ends_everything_in_time(site: Site) -> None:
    assert site.process is not None
    children = psutil.Process(site.process.pid).children(recursive=True)
    started = time.monotonic()
    site.process.send_signal(signal.SIGTERM)
    assert site.process.wait(15) == 0
    assert time.monotonic() - started < 10
    assert not any(child.is_running() for child in children)
    assert site.said("left the federation") == 1


def test_a_revoked_key_ends_the_client(coordinator: Coordinator, site: Site) -> None:
    assert coordinator.command("revoke", "north").returncode == 0
    (site.folder / "state" / "run" / "accepted.json").unlink()
    done = run("semc-client", "--site", str(site.file))
    assert done.returncode == ExitCode.KEY_UNREGISTERED
