"""Where two settings differ, in words a person can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def difference(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return one line per differing entry: `federation.rounds: 3 before, 5 now`.

    Args:
        before: Nested settings, as JSON values.
        now: The same of today.
        prefix: In front of every name.
    """
    lines: list[str] = []
    for key in sorted({*before, *now}):
        name = f"{prefix}{key}"
        if key not in before:
            lines.append(f"{name}: not there before")
        elif key not in now:
            lines.append(f"{name}: gone now")
        elif isinstance(before[key], Mapping) and isinstance(now[key], Mapping):
            lines += difference(before[key], now[key], f"{name}.")
        elif before[key] != now[key]:
            lines.append(f"{name}: {before[key]} before, {now[key]} now")
    return lines
