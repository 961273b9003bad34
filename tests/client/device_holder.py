"""A process that uses a device until its standard input ends, so that others meet a device that is taken."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

from client.device_lock import sole_use


def main() -> None:
    """Hold: `python -m tests.client.device_holder <device> <folder>`; says `waiting` and `holding`."""
    signal.signal(signal.SIGTERM, _leave)
    device, folder = sys.argv[1:3]
    with sole_use(device, lambda: print("waiting", flush=True), Path(folder)):
        print("holding", flush=True)
        sys.stdin.read()


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(7)


if __name__ == "__main__":
    main()
