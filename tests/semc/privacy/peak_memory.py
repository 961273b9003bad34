"""The most memory that tensors and arrays take during a call, beyond what is held before it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object]) -> int:
    """Return torch's peak on the CPU plus numpy's, bytes; the two need not fall together."""
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
    arrays = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak + arrays
