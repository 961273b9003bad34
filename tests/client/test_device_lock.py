"""One GPU, one training at a time, across processes and users; a killed holder keeps nothing."""

from __future__ import annotations

import logging
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest
import torch

from client import device_lock
from client.device_lock import gpu_name, sole_use
from client.private_round import PrivateSiteTrainer
from client.progress import Progress
from client.training_round import SiteTrainer
from semc.config import SiteConfig, parse_study
from semc.models import build_model
from semc.parameter_exchange import split_parameters
from tests.client.private_site import PRIVATE_TEXT, private_site
from tests.client.test_training_round import FIRST, STUDY

GPU = "GPU-5f0c/../x"
"""No name may lead out of the folder."""


@contextmanager
def holder(folder: Path, says: str, device: str = GPU) -> Iterator[subprocess.Popen[str]]:
    """Start a process that wants the device and wait until it says that it holds it, or waits for it."""
    command = [sys.executable, "-m", "tests.client.device_holder", device, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == says
            yield process
        finally:
            process.kill()


def is_free(folder: Path) -> bool:
    """Tell whether nobody holds the device; gives up as soon as it would have to wait."""

    class Taken(Exception):
        pass

    def give_up() -> None:
        raise Taken

    try:
        with sole_use(GPU, give_up, folder):
            return True
    except Taken:
        return False


def test_the_second_process_waits_for_the_first(tmp_path: Path) -> None:
    with holder(tmp_path, "holding") as first, holder(tmp_path, "waiting") as second:
        assert first.stdin is not None
        first.stdin.close()
        assert second.stdout is not None
        assert second.stdout.readline().strip() == "holding"
        assert not is_free(tmp_path)
    assert is_free(tmp_path)


def test_a_killed_holder_frees_the_device(tmp_path: Path) -> None:
    with holder(tmp_path, "holding") as first, holder(tmp_path, "waiting") as second:
        first.send_signal(signal.SIGKILL)
        assert second.stdout is not None
        assert second.stdout.readline().strip() == "holding"


def test_a_waiting_process_ends_when_it_is_told_to(tmp_path: Path) -> None:
    with holder(tmp_path, "holding"), holder(tmp_path, "waiting") as second:
        started = time.monotonic()
        second.send_signal(signal.SIGTERM)
        assert second.wait(10) == 7
        assert time.monotonic() - started < 5


def test_another_device_is_another_lock(tmp_path: Path) -> None:
    with holder(tmp_path, "holding"), holder(tmp_path, "holding", "GPU-2"):
        assert len(list(tmp_path.iterdir())) == 2
    assert all(path.suffix == ".lock" for path in tmp_path.iterdir())


def test_others_may_open_the_file_and_a_link_is_not_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with sole_use("GPU-1", lambda: None, tmp_path):
        (file,) = tmp_path.iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
    file.unlink()
    (tmp_path / "precious").write_text("x")
    file.symlink_to(tmp_path / "precious")
    with caplog.at_level(logging.WARNING), sole_use("GPU-1", lambda: None, tmp_path):
        pass
    assert "without a lock" in caplog.text
    assert (tmp_path / "precious").read_text() == "x"


def test_the_cpu_is_shared(tmp_path: Path) -> None:
    assert gpu_name(torch.device("cpu")) is None
    with sole_use(None, lambda: None, tmp_path):
        assert list(tmp_path.iterdir()) == []


@pytest.fixture
def as_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this machine's processor stand for a GPU; returns the folder of the locks."""
    (tmp_path / "locks").mkdir()
    monkeypatch.setattr(device_lock, "gpu_name", lambda _device: GPU)
    monkeypatch.setattr(device_lock, "LOCK_FOLDER", tmp_path / "locks")
    return tmp_path / "locks"


def train(site: SiteConfig) -> list[Progress]:
    told: list[Progress] = []
    SiteTrainer(site, STUDY).run_round(1, FIRST, told.append)
    return told


def test_a_round_waits_for_its_gpu_and_says_so_once(site: SiteConfig, as_gpu: Path) -> None:
    with holder(as_gpu, "holding") as other:
        Timer(1.0, other.kill).start()
        told = train(site)
        assert other.poll() is not None, "the round was over after the other had ended"
    assert next(item.phase for item in told) == "waiting"
    assert sum(item.phase == "waiting" for item in told) == 1
    assert is_free(as_gpu), "and it holds the GPU no longer than its round"


def test_sites_that_share_a_gpu_do_not_wait(site: SiteConfig, as_gpu: Path) -> None:
    with holder(as_gpu, "holding") as other:
        told = train(site.model_copy(update={"exclusive_device": False}))
        assert other.poll() is None
    assert not [item for item in told if item.phase == "waiting"]


def test_a_private_round_that_waits_has_reserved_nothing(tmp_path: Path, as_gpu: Path) -> None:
    study = parse_study(PRIVATE_TEXT)
    trainer = PrivateSiteTrainer(private_site(tmp_path / "site"), study)
    shared = split_parameters(build_model(study), study.federation.bn).shared

    def stop(progress: Progress) -> None:
        assert progress.phase == "waiting"
        raise SystemExit(0)  # what SIGTERM does in a deployed process

    before = sorted((tmp_path / "site" / "ledger").iterdir())
    content = [file.read_bytes() for file in before]
    with holder(as_gpu, "holding"), pytest.raises(SystemExit):
        trainer.run_round(1, shared, stop)
    assert [file.read_bytes() for file in before] == content
    trainer.run_round(1, shared)
    assert [file.read_bytes() for file in before] != content, "the control: this is where it would stand"
