"""The most memory that a call takes beyond what is held before it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class PeakMemory:
    """Peaks in bytes; the two need not fall together."""

    tensors: int
    """Torch's, on the CPU."""
    python: int
    """Numpy's arrays and Python's own objects."""


def peak_memory(call: Callable[[], object]) -> PeakMemory:
    """Measure a call that can be repeated; it is made three times."""
    call()  # one-time allocations are not the call's
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    tracemalloc.start()
    call()
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return PeakMemory(peak, python)
