"""Stops a real process at a chosen point, so that it can be killed exactly there; the product has no hook for this.

Python imports this module at the start of every process whose PYTHONPATH holds its folder. Only where the environment
names a plan are functions wrapped, right after their modules are executed, so that `from x import y` finds the
wrapped one. The plan is read anew whenever its file changes. See tests/faults/plan.py.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

PLAN_VARIABLE = "SEMC_FAULT_PLAN"
POINTS = {
    ("worker", "download"): ("flwr.supernode.runtime.run_clientapp", "pull_and_inflate_object_from_tree"),
    ("worker", "train"): ("semc.training.trainer", "Trainer._step"),
    ("worker", "private train"): ("semc.training.private_trainer", "PrivateTrainer._loss"),
    ("worker", "upload"): ("flwr.supernode.runtime.run_clientapp", "push_objects"),
    ("supernode", "download"): ("flwr.supernode.start_client_internal", "pull_objects"),
    ("supernode", "upload"): ("flwr.supernode.start_client_internal", "push_object_contents_from_iterable"),
    ("executor", "spool"): ("server.spool", "Spool.keep"),
    ("executor", "aggregate"): ("server.aggregation.mean", "weighted_mean"),
    ("executor", "checkpoint"): ("semc.checkpoint", "_write_json"),
}
"""(role of the process, stage) -> the function at whose call a process can be stopped."""

_POLL_SECONDS = 0.02


def role_of(arguments: Sequence[str]) -> tuple[str, str]:
    """Return what a process is and the site it belongs to, by its command line and environment."""
    line = " ".join(arguments)
    named = re.search(r'site="([^"]+)"', line)
    site = named[1] if named else Path(os.environ.get("SEMC_SITE_FILE", "/")).parent.name
    for word, role in (("client.worker", "worker"), ("client.supernode", "supernode")):
        if word in arguments:
            return role, site
    if "server.superlink" in arguments:
        return ("executor" if "executor" in arguments else "superlink"), ""
    return "", ""


class Plan:
    """What to do at which call; the file is a JSON list of :class:`tests.faults.plan.Stop` as plain values."""

    def __init__(self, file: Path, role: str, site: str) -> None:
        self._file, self._role, self._site = file, role, site
        self._changed = 0
        self._stops: list[dict[str, Any]] = []

    def due(self, stage: str) -> dict[str, Any] | None:
        """Count a call of a stage's function; return what is due at it."""
        self._read()
        for stop in self._stops:
            if stop["stage"] != stage:
                continue
            stop["call"] -= 1
            if stop["call"] <= 0 and _first(Path(stop["marker"])):
                return stop
        return None

    def _read(self) -> None:
        try:
            changed = self._file.stat().st_mtime_ns
            if changed != self._changed:
                self._stops = [
                    stop
                    for stop in json.loads(self._file.read_text())
                    if stop["role"] == self._role and stop["site"] in ("", self._site)
                ]
                self._changed = changed
        except FileNotFoundError:
            self._stops, self._changed = [], 0


def _first(marker: Path) -> bool:
    """Leave the mark of this process; False where one was here before."""
    try:
        descriptor = os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    os.write(descriptor, f"{os.getpid()}\n".encode())
    os.close(descriptor)
    return True


def wrapped(original: Callable[..., Any], stage: str, plan: Plan) -> Callable[..., Any]:
    """Return the function with what the plan wants done at its calls."""

    @functools.wraps(original)
    def stopping(*arguments: Any, **options: Any) -> Any:
        stop = plan.due(stage)
        if stop is None:
            return original(*arguments, **options)
        if stop["action"] == "bend":
            return original(*arguments, **options) * (1 + 1e-6)
        end = time.monotonic() + stop["seconds"]
        while not os.path.exists(stop["release"]) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        return original(*arguments, **options)

    return stopping


class _WrappingLoader(importlib.abc.Loader):
    """Executes a module as its own loader would, then wraps one function of it."""

    def __init__(self, loader: importlib.abc.Loader, points: dict[str, str], plan: Plan) -> None:
        self._loader, self._points, self._plan = loader, points, plan

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        for stage, name in self._points.items():
            *parents, last = name.split(".")
            holder: Any = functools.reduce(getattr, parents, module)
            setattr(holder, last, wrapped(getattr(holder, last), stage, self._plan))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, role: str, plan: Plan) -> None:
        self._plan = plan
        self._modules: dict[str, dict[str, str]] = {}
        for (owner, stage), (module, name) in POINTS.items():
            if owner == role:
                self._modules.setdefault(module, {})[stage] = name

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        points = self._modules.pop(name, None)
        if points is None:
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self else None
            if spec is not None and spec.loader is not None:
                spec.loader = _WrappingLoader(spec.loader, points, self._plan)
                return spec
        return None


if PLAN_VARIABLE in os.environ:
    _role, _site = role_of(sys.orig_argv)
    if _role:
        sys.meta_path.insert(0, _Finder(_role, Plan(Path(os.environ[PLAN_VARIABLE]), _role, _site)))
