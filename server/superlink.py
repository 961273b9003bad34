"""The one file of the server that touches Flower's private modules: SuperLink, its door, the executor.

Flower is pinned to one version; `tests/contracts/test_flower_server.py` fails loudly on any other. Changed
here:

* SQLite waits 300 s for a lock instead of 5 s, or a large upload ends a run with "database is locked"; its
  log moves into the database every 64 MiB instead of 4, and leases that ended are looked for once a second
  instead of in every request; its pages have 64 KiB.
* Request bodies travel between Flower's layers in pieces of 4 MiB instead of 64 KiB, and layers that do nothing on
  a path are passed by there.
* Peers other than this machine reach `/v1/fleet/*` only; the Control API on the same port has no login.
* The executor takes one run at a time into a process that is already warm (torch, flwr and the round loop
  imported) and ends with it; the supervisor then starts the next. Flower's own starts a new process per run,
  takes tasks of other kinds too, and loses the ServerApp's output.
* The first retry of a pull comes after 0.05 s instead of 1 s.

Run as `python -P -m server.superlink PARENT ROLE ...` with the supervisor's process id, and `superlink
ARGUMENTS...` or `executor ADDRESS CA SECRET`.
"""

from __future__ import annotations

import importlib
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Queue
from typing import Any, Final, NoReturn

import httpx
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_utils import pull_objects
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.logger import mirror_output_to_queue
from flwr.supercore.runtime import RuntimeHttpClient
from starlette.middleware import Middleware

from server.door import FLEET_PATH, FleetOnly, LargePieces, OnlyBelow
from server.process import START_FAILED, die_with

PRAGMAS: Final = {"page_size": "65536", "busy_timeout": "300000", "wal_autocheckpoint": "1024"}
"""Large pages for 5 MiB objects (of a new database only); wait five minutes for another writer (ms); move the log into
the database every 64 MiB."""
TASK_CLEANUP_SECONDS: Final = 1.0
"""How soon after its lease ends a task counts as lost; Flower writes for it in every request, reads included."""
FIRST_RETRY_SECONDS: Final = 0.05
CONTROL_PATH: Final = "/v1/control/"
RUNTIME_PATH: Final = "/v1/runtime/"
PATH_OF_LAYER: Final = {
    "ControlSensitiveResponseMiddleware": CONTROL_PATH,
    "ControlAuthenticationMiddleware": CONTROL_PATH,
    "ControlLicenseMiddleware": CONTROL_PATH,
    "ControlEventLogMiddleware": CONTROL_PATH,
    "RuntimeTracingMiddleware": RUNTIME_PATH,
    "NodeAuthMiddleware": FLEET_PATH,
    "FleetEventLogMiddleware": FLEET_PATH,
}
"""Flower's layers that do nothing but below one path."""
_ACQUIRE_TASK: Final = "/flwr.proto.Runtime/AcquireTask"
_IDLE_POLL_SECONDS: Final = 0.2


def run_superlink(arguments: Sequence[str]) -> None:
    """Run a SuperLink in this process with the longer lock wait and the door; ends the process.

    Args:
        arguments: The command line after the program's name.
    """
    tune_database()
    close_door()
    sys.argv = ["flower-superlink", *arguments]
    importlib.import_module("flwr.superlink.cli").flower_superlink()


def tune_database() -> None:
    """Set SQLite's pragmas where they were imported to, and look for ended tasks once a second."""
    module: Any = importlib.import_module("flwr.supercore.sql_mixin")
    module.SQLITE_PRAGMAS = tuple(
        (PRAGMAS | dict(module.SQLITE_PRAGMAS) | PRAGMAS).items()
    )  # page size first
    state: Any = importlib.import_module("flwr.supercore.corestate.sql_corestate").SqlCoreState
    state._cleanup_expired_task_tokens = at_most_every(
        TASK_CLEANUP_SECONDS, state._cleanup_expired_task_tokens
    )


def at_most_every(seconds: float, function: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return the function with calls left out that come too soon after the last one, whatever the argument."""
    due = 0.0

    def sparse(argument: Any) -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due:
            due = now + seconds
            function(argument)

    return sparse


def close_door() -> None:
    """Put the door around the app that Flower's command line will create.

    Flower sends every request through nine layers; those that only look at control, runtime or fleet paths are
    passed by where the path is another: most of a small request's time went there.
    """
    main: Any = importlib.import_module("flwr.superlink.main")
    stock_app, stock_layers = main.create_app, main._get_middleware

    def layers() -> list[Middleware]:
        return [
            Middleware(OnlyBelow, prefix=prefix, middleware=layer)
            if (prefix := PATH_OF_LAYER.get(layer.cls.__name__))
            else layer
            for layer in stock_layers()
        ]

    def create_app(*args: Any, **kwargs: Any) -> Any:
        app = stock_app(*args, **kwargs)
        app.add_middleware(LargePieces)
        app.add_middleware(FleetOnly)
        return app

    main._get_middleware = layers
    main.create_app = create_app


def run_executor(address: str, root_certificates: bytes, secret: bytes) -> NoReturn:
    """Wait for one run, run its ServerApp in this process, and end.

    Args:
        address: host:port of the SuperLink on this machine.
        root_certificates: PEM certificate of its authority.
        secret: What SuperLink and executor share, to sign the request for a task.
    """
    try:
        importlib.import_module("server.app")  # warm: Flower finds it imported, whatever a bundle holds
        _defaults_of_pull()["initial_backoff"] = FIRST_RETRY_SECONDS
        token = _wait_for_run(address, root_certificates, secret)
    except Exception:
        logging.exception("the executor could not start")
        sys.exit(START_FAILED)
    log_queue: Queue[str | None] = Queue()
    mirror_output_to_queue(log_queue)
    importlib.import_module("flwr.superlink.runtime").run_serverapp(
        runtime_api_address=address,
        log_queue=log_queue,
        token=token,
        insecure=False,
        certificates=root_certificates,
        runtime_dependency_install=False,
    )
    sys.exit(0)


def limit_pulls(seconds: float) -> None:
    """Let a pull that waits for a reply's upload end after this time; Flower's limit is two hours."""
    _defaults_of_pull()["max_time"] = seconds


def _defaults_of_pull() -> dict[str, Any]:
    """Return the defaults Flower bound when it defined its pull function."""
    assert pull_objects.__kwdefaults__ is not None
    return pull_objects.__kwdefaults__


def _wait_for_run(address: str, root_certificates: bytes, secret: bytes) -> str:
    """Ask the SuperLink for a ServerApp task until there is one; return its token."""
    sign = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={_ACQUIRE_TASK})
    with RuntimeHttpClient.from_server_address(
        address,
        insecure=False,
        root_certificates=root_certificates,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr-serverapp"), sign],
    ) as client:
        while True:
            try:
                got = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
            except httpx.TransportError:  # the SuperLink is starting or restarting
                got = None
            if got is not None and got.HasField("task") and got.token:
                return str(got.token)
            time.sleep(_IDLE_POLL_SECONDS)


def main() -> None:
    """Run as the child process that the supervisor starts."""
    parent, role, *arguments = sys.argv[1:]
    die_with(int(parent))
    if role == "superlink":
        run_superlink(arguments)
    else:
        address, ca, secret = arguments
        run_executor(address, Path(ca).read_bytes(), Path(secret).read_bytes())


if __name__ == "__main__":
    main()
