"""The one file of the server that touches Flower's private modules: SuperLink, its door, the executor.

Flower is pinned to one version; `tests/contracts/test_flower_server.py` fails loudly on any other. Changed
here:

* SQLite waits 300 s for a lock instead of 5 s, or a large upload ends a run with "database is locked".
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
import ipaddress
import logging
import sys
import time
from collections.abc import Sequence
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
from starlette.types import ASGIApp, Receive, Scope, Send

from server.process import START_FAILED, die_with

BUSY_TIMEOUT_MS: Final = 300_000
FIRST_RETRY_SECONDS: Final = 0.05
FLEET_PATH: Final = "/v1/fleet/"
_ACQUIRE_TASK: Final = "/flwr.proto.Runtime/AcquireTask"
_IDLE_POLL_SECONDS: Final = 0.2

__all__ = ["FleetOnly", "limit_pulls", "run_executor", "run_superlink"]


class FleetOnly:
    """ASGI middleware: a peer that is not this machine sees the fleet endpoints and nothing else.

    The address is the TCP peer's; forwarded-for headers are not believed. A proxy on the same machine counts
    as local and must filter paths itself.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 404, or hand the request on."""
        if scope["type"] in ("http", "websocket") and not _may_pass(scope):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, send)


def _may_pass(scope: Scope) -> bool:
    client = scope.get("client")
    try:
        local = client is not None and ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        local = False
    path: str = scope["path"]
    # ".." is not resolved by the router, but a door does not rely on what stands behind it.
    return local or (path.startswith(FLEET_PATH) and ".." not in path)


def run_superlink(arguments: Sequence[str]) -> None:
    """Run a SuperLink in this process with the longer lock wait and the door; ends the process.

    Args:
        arguments: The command line after the program's name.
    """
    set_busy_timeout()
    close_door()
    sys.argv = ["flower-superlink", *arguments]
    importlib.import_module("flwr.superlink.cli").flower_superlink()


def set_busy_timeout() -> None:
    """Have SQLite wait five minutes for another writer; the pragmas are read where they were imported to."""
    module: Any = importlib.import_module("flwr.supercore.sql_mixin")
    module.SQLITE_PRAGMAS = tuple(
        (dict(module.SQLITE_PRAGMAS) | {"busy_timeout": str(BUSY_TIMEOUT_MS)}).items()
    )


def close_door() -> None:
    """Put :class:`FleetOnly` around the app that Flower's command line will create."""
    main: Any = importlib.import_module("flwr.superlink.main")
    stock = main.create_app

    def create_app(*args: Any, **kwargs: Any) -> Any:
        app = stock(*args, **kwargs)
        app.add_middleware(FleetOnly)
        return app

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
