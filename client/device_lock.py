"""Never two trainings on one GPU: whoever comes second waits, instead of both failing for want of memory.

The lock is a file of this machine, named after the GPU itself: the numbers programs give to GPUs differ between
containers and environments. Any user's process can wait for any other's. No crash leaves it behind. Services with a
/tmp of their own (systemd's PrivateTmp, containers) do not see each other's lock; `docker/semc-client.service` has the
machine's.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import torch

from client.progress import Progress, Report
from semc.config import SiteConfig

LOCK_FOLDER: Final = Path("/tmp")  # noqa: S108 - one for all users and environments, which TMPDIR need not be
_POLL_SECONDS: Final = 0.2
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC

log = logging.getLogger(__name__)


def gpu_name(device: torch.device) -> str | None:
    """Return what names a GPU on this machine, whatever its number is here; None for the CPU, which is shared."""
    if device.type != "cuda":
        return None
    return str(torch.cuda.get_device_properties(device).uuid)


def gpu_for_a_round(
    site: SiteConfig, device: torch.device, round_number: int, report: Report
) -> AbstractContextManager[None]:
    """Hold a site's GPU for the length of a block, as :func:`sole_use`; nothing where it shares it or has none.

    Args:
        site: Whether it shares its GPU.
        device: Where it computes.
        round_number: For the report.
        report: Told once where the GPU is taken.
    """
    name = gpu_name(device) if site.exclusive_device else None
    return sole_use(name, lambda: report(Progress("waiting", round_number)), LOCK_FOLDER)


@contextmanager
def sole_use(name: str | None, waiting: Callable[[], None], folder: Path) -> Iterator[None]:
    """Hold a device for the length of a block; waits without limit, in short sleeps that a signal ends.

    Where the machine does not allow the lock's file, the block runs without it and the log says so: a round that
    may run out of memory is better than none.

    Args:
        name: The device; None: nothing is held.
        waiting: Called once, where another process holds it.
        folder: Where the locks of this machine lie.
    """
    if name is None:
        yield
        return
    try:
        descriptor = _opened(folder / f"semc-{re.sub(r'[^A-Za-z0-9-]', '-', name)}.lock")
    except OSError as error:
        log.warning("the GPU is used without a lock (%s)", error.strerror)
        yield
        return
    try:
        _wait_for(descriptor, waiting)
        yield
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    """Open a lock's file, made where missing.

    Others' files are opened without the wish to make them: in a folder for everyone the kernel refuses that.
    """
    while True:
        try:
            return os.open(path, _FLAGS)
        except FileNotFoundError:
            try:
                descriptor = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                continue  # another process was faster
            os.fchmod(descriptor, 0o644)  # also where this process's files are its user's alone
            return descriptor


def _wait_for(descriptor: int, waiting: Callable[[], None]) -> None:
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                waiting()
            told = True
            time.sleep(_POLL_SECONDS)
        else:
            return
