"""A simulation joins a Ray cluster that runs already, when asked to and only then."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from semc.config import StudyConfig
from simulation.rehearsal import free_port

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
_RAY = str(Path(sys.executable).with_name("ray"))


@pytest.fixture
def cluster() -> Iterator[tuple[str, Path]]:
    """Address of a one-node cluster of this test's own, and the folder of its logs."""
    folder = Path(mkdtemp(prefix="ray", dir="/tmp"))  # Ray's sockets need a short path
    head = subprocess.Popen(
        [
            _RAY,
            "start",
            "--head",
            "--block",
            "--num-cpus=2",
            "--node-ip-address=127.0.0.1",
            f"--port={free_port()}",
            f"--temp-dir={folder}",
            "--include-dashboard=false",
            "--disable-usage-stats",
        ],
        env={**os.environ, **_QUIET},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert head.stdout is not None
        told = ""
        for line in head.stdout:
            told += line
            if "--block" in line:  # its last words
                break
        address = re.search(r"--address='([^']+)'", told)
        assert address, told
        yield address[1], folder
    finally:
        head.terminate()
        head.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _run(study: Path, hospitals: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from simulation.cli import main; main()", "run", str(study)]
    command += ["--sites", str(hospitals), "--out", str(out), "--format", "json", *arguments]
    return subprocess.run(
        command, check=False, env={**os.environ, **_QUIET}, capture_output=True, text=True, timeout=240
    )


def _actors(folder: Path) -> int:
    """Return how many workers of the cluster have run virtual sites, by their logs."""
    return sum(
        "ClientAppActor" in path.name or "ClientAppActor" in path.read_text(errors="ignore")
        for path in folder.rglob("worker-*.out")
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_joins_the_cluster_it_is_pointed_to_and_no_other(
    cluster: tuple[str, Path], study: StudyConfig, hospitals: Path, tmp_path: Path
) -> None:
    address, folder = cluster
    file = tmp_path / "study.yaml"
    file.write_text(study.to_yaml(), encoding="utf-8")
    alone = _run(file, hospitals, tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    assert _actors(folder) == 0
    joined = _run(file, hospitals, tmp_path / "joined", "--ray-address", address)
    assert joined.returncode == 0, joined.stderr
    assert _actors(folder) > 0
    assert '"outcome": "complete"' in joined.stdout
