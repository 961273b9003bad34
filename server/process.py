"""Child processes that do not outlive the coordinator, and the environment Flower is started in."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Final

START_FAILED: Final = 70
"""Exit status of a child that failed before it had anything to do (sysexits' EX_SOFTWARE)."""

_PR_SET_PDEATHSIG: Final = 1

FLOWER_ENVIRONMENT: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
    "MALLOC_ARENA_MAX": "2",
}
"""Set before flwr is imported: no telemetry, update check, installs, nor a proxy on the loopback."""


def die_with(parent: int) -> None:
    """Have Linux end this process when its parent dies, however it dies; elsewhere do nothing.

    Args:
        parent: Process id of the parent, which may have died while this process was starting.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)


def flower_environment(flower_home: Path) -> dict[str, str]:
    """Return this process's environment with Flower's settings laid over it.

    Args:
        flower_home: Flower's own home; one per service, since its command line writes there.
    """
    return {**os.environ, **FLOWER_ENVIRONMENT, "FLWR_HOME": str(flower_home)}


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs an installed module.

    `-P` keeps the working directory off the import path: a stray `client/` there would be imported instead.
    """
    return [sys.executable, "-P", "-m", module, *arguments]
