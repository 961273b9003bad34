"""Which files Python opens, told by its own audit events: a fact, whatever library opens them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_watched: list[tuple[Path, list[str]]] = []


def _hook(event: str, args: tuple[object, ...]) -> None:
    if event not in ("open", "os.scandir", "os.listdir") or not _watched or not args:
        return
    if isinstance(args[0], (str, bytes, os.PathLike)):
        path = Path(os.fsdecode(args[0])).absolute()
        for folder, seen in _watched:
            if path == folder or folder in path.parents:
                seen.append(path.name)


sys.addaudithook(_hook)


@contextmanager
def opened_in(folder: Path) -> Iterator[list[str]]:
    """Collect what is opened or listed below a folder while the block runs."""
    seen: list[str] = []
    _watched.append((folder.absolute(), seen))
    try:
        yield seen
    finally:
        _watched.remove((folder.absolute(), seen))
