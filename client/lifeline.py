"""No process outlives the one that started it: a child asks the kernel for a signal when its parent dies.

The kernel sends it when the parent's *thread* that started the child ends, so children are started from main threads.
"""

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


def end_forks_with_this_process() -> None:
    """Have every process forked from now on killed when the one that forked it ends (Linux only).

    torch's image-loading processes notice the death of theirs only every five seconds, and not while they load; until
    then they hold the locks that were open when they were forked, and the next worker would find its site busy.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(
        None, use_errno=True
    )  # loaded here: a fork of a process with threads should load nothing
    parent = 0

    def before() -> None:
        nonlocal parent
        parent = os.getpid()

    def in_child() -> None:
        library.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:
            os._exit(1)  # it died before the kernel was asked

    os.register_at_fork(before=before, after_in_child=in_child)
