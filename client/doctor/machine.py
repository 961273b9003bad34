"""Checks of this machine: versions, state directory, disk, key, device, loopback ports."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

from client.doctor.row import Row, checked, passed, skipped, warning
from client.identity import read_identity
from client.lock import is_held
from semc.config import SiteConfig
from semc.exit_codes import ExitCode, SemcError
from semc.flower_version import check_flower_version

MIN_FREE_GB: Final = 1.0
"""Free space a small study needs for its states and logs."""
GOOD_FREE_GB: Final = 5.0
"""The largest network's state takes 0.6 GB with its momentum; four are kept while the fifth is written
(`federation.checkpoints_kept` and one)."""
_GB: Final = 1e9


def machine_rows(site: SiteConfig) -> Iterator[Row]:
    """Yield what this machine is like."""
    yield checked("flower version", _flower)
    yield checked("state directory", lambda: _writable(site.state_directory))
    yield _disk(site.state_directory)
    yield checked("site key", lambda: read_identity(site.private_key, site.site).fingerprint)
    yield checked("device", lambda: _device(site))
    yield _threads(site)
    yield from _ports(site)


def _flower() -> str:
    check_flower_version()
    return version("flwr")


def _existing(folder: Path) -> Path:
    """Return the folder itself or the nearest parent that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _writable(folder: Path) -> str:
    if not os.access(_existing(folder), os.W_OK | os.X_OK):
        raise SemcError(
            ExitCode.DISK, "The state directory is not writable.", "correct state_directory or its owner"
        )
    return "writable"


def _disk(folder: Path) -> Row:
    free = shutil.disk_usage(_existing(folder)).free / _GB
    if free < MIN_FREE_GB:
        error = SemcError(ExitCode.DISK, f"Only {free:.1f} GB are free for states.", "free space")
        return Row("disk space", "wrong", error.problem, error.fix, error.code)
    if free < GOOD_FREE_GB:
        return warning("disk space", f"{free:.1f} GB free", f"large networks need {GOOD_FREE_GB:.0f} GB")
    return passed("disk space", f"{free:.0f} GB free")


def _device(site: SiteConfig) -> str:
    import torch

    from client.device import compute_device

    device = compute_device(site.device)
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _threads(site: SiteConfig) -> Row:
    cores = os.cpu_count() or 1
    if site.threads > cores:
        return warning(
            "threads", f"{site.threads} threads on {cores} cores", f"set threads to {cores} or less"
        )
    return passed("threads", f"{site.threads} of {cores} cores")


def _ports(site: SiteConfig) -> Iterator[Row]:
    """Yield the loopback ports, unless the site's own client holds them."""
    if is_held(site.state_directory / "client.lock"):
        yield skipped("ports", "in use by this site's running client")
        return
    yield _port("runtime port", site.runtime_port, needed=False)
    if site.health_port is not None:
        yield _port("health port", site.health_port, needed=True)


def _port(name: str, port: int, *, needed: bool) -> Row:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            fix = "choose another port in the site file"
            if needed:
                return Row(name, "wrong", f"port {port} is taken", fix, ExitCode.PORT_IN_USE)
            return warning(name, f"port {port} is taken; another one will be used", fix)
    return passed(name, f"{port} is free")
