"""The one process that trains: started before the SuperNode, alive until the site leaves.

Libraries are imported once; data and network load when the first study arrives and stay warm. Progress goes
to the supervisor as marked lines on standard output, everything else as log lines.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from client.lifeline import end_forks_with_this_process, end_with_supervisor
from client.progress import Progress

MODULE: Final = "client.worker"
_HARD_EXIT_SECONDS: Final = 3.0


def main() -> None:
    """Serve one SuperNode: `python -P -m client.worker <host:port> <secret file> <longest poll>`."""
    end_with_supervisor(signal.SIGKILL)
    end_forks_with_this_process()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal; the supervisor ends us by SIGTERM
    signal.signal(signal.SIGTERM, _leave)
    address, secret_file, longest_poll = sys.argv[1:4]
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)

    from client import executor
    from client.app import build_app
    from client.refusal import refusal_of

    for handler in list(logging.getLogger("flwr").handlers):
        logging.getLogger("flwr").removeHandler(handler)  # its records reach the root logger once
    _tell(Progress("ready"))
    executor.serve(
        address,
        Path(secret_file).read_bytes(),
        build_app(report=_Pace(1.0).tell),
        refusal_of,
        threading.Event(),
        float(longest_poll),
        lambda stage: _tell(Progress(stage.value)),
    )


class _Pace:
    """Passes progress on, but steps within a round no more often than the eye can use.

    Args:
        seconds: Least time between two steps that are told.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._last = seconds, 0.0

    def tell(self, progress: Progress) -> None:
        """Pass on what is new; a finished round and a refusal always."""
        now = time.monotonic()
        if progress.phase == "training" and progress.loss is None and now - self._last < self._seconds:
            return
        self._last = now
        _tell(progress)


def _tell(progress: Progress) -> None:
    """Write one line in one piece."""
    os.write(sys.stdout.fileno(), progress.to_line().encode())


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    """End now: states on disk are whole or absent, so nothing has to be finished first."""
    timer = threading.Timer(_HARD_EXIT_SECONDS, os._exit, (0,))
    timer.daemon = True
    timer.start()
    raise SystemExit(0)


if __name__ == "__main__":
    main()
