"""No process outlives its supervisor: a child asks the kernel for a signal when its parent dies."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

from client.environment import SUPERVISOR

_PR_SET_PDEATHSIG: Final = 1


def end_with_supervisor(with_signal: signal.Signals) -> None:
    """Have this process signalled when its supervisor ends, however that ends (Linux only).

    Args:
        with_signal: SIGTERM to end in order, SIGKILL at once.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(with_signal))
    supervisor = os.environ.get(SUPERVISOR)
    if supervisor is not None and os.getppid() != int(supervisor):
        os.kill(os.getpid(), with_signal)  # it died before the kernel was asked
