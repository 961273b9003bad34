"""Environment variables: those this package's processes share, and those Flower must find when imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

SITE_FILE: Final = "SEMC_SITE_FILE"
"""The site file of a deployed process."""
SUPERVISOR: Final = "SEMC_SUPERVISOR_PID"
"""Process number of the supervisor a child must not outlive."""

_LOOPBACK: Final = ("127.0.0.1", "localhost")


def without_proxy_on_loopback() -> str:
    """Return NO_PROXY with the loopback names added: a proxy cannot reach our own processes."""
    given = [name.strip() for name in os.environ.get("NO_PROXY", os.environ.get("no_proxy", "")).split(",")]
    return ",".join(dict.fromkeys([*(name for name in given if name), *_LOOPBACK]))


def flower_environment(home: Path) -> dict[str, str]:
    """Return what must be set before Flower is imported: it reports, installs and looks up nothing.

    Args:
        home: Flower's own folder, one per service.
    """
    return {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "NO_PROXY": without_proxy_on_loopback(),
        "MALLOC_ARENA_MAX": "2",
        # Keep the gradients' memory between steps instead of giving it back and faulting it in again.
        "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
        "MALLOC_MMAP_THRESHOLD_": str(2**31 - 1),
        "PYTHONUNBUFFERED": "1",
    }
