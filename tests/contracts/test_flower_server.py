"""What `server/superlink.py` relies on in Flower's private modules; another Flower fails here first."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import flwr
import httpx
import pytest
from flwr.common.constant import ErrorCode
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.inflatable.inflatable_utils import pull_objects
from flwr.supercore.protobuf.client import PROTOBUF_MEDIA_TYPE

from semc.protocol import FLOWER_VERSION
from server import superlink
from server.receipts import FlowerError

SQL = "flwr.supercore.sql_mixin"
REMOTE, LOCAL = ("198.51.100.7", 40000), ("127.0.0.1", 40000)


def test_version_and_task_types() -> None:
    assert flwr.__version__ == FLOWER_VERSION == "1.41.0"
    assert TaskType.SERVER_APP == "flwr-serverapp"
    assert TaskType.CLIENT_APP == "flwr-clientapp"


def test_private_names_exist() -> None:
    assert callable(importlib.import_module("flwr.superlink.cli").flower_superlink)
    parameters = inspect.signature(importlib.import_module("flwr.superlink.runtime").run_serverapp).parameters
    assert set(parameters) == {
        "runtime_api_address",
        "log_queue",
        "token",
        "insecure",
        "certificates",
        "parent_pid",
        "runtime_dependency_install",
    }


def test_command_line_creates_the_app_by_a_late_import() -> None:
    source = inspect.getsource(command_line()._run_superlink_http_api)
    assert "from flwr.superlink.main import" in source
    assert source.index("import") < source.index("create_app(")


def test_error_codes() -> None:
    for code in FlowerError:
        assert getattr(ErrorCode, code.name) == code


def test_waits_are_where_they_are_changed() -> None:
    assert pull_objects.__kwdefaults__ is not None
    assert {"initial_backoff", "max_time"} <= pull_objects.__kwdefaults__.keys()
    source = inspect.getsource(importlib.import_module("flwr.superlink.grid.http_grid"))
    assert "pull_objects(" in source
    assert "initial_backoff" not in source, "the grid uses the defaults that the executor changes"
    assert "max_time" not in source


def test_pull_limit_reaches_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pull_objects.__kwdefaults__ is not None
    monkeypatch.setitem(pull_objects.__kwdefaults__, "max_time", 7200.0)
    superlink.limit_pulls(12.5)
    assert pull_objects.__kwdefaults__["max_time"] == 12.5


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Flower's SQL state class after `tune_database`, put back afterwards."""
    module: Any = importlib.import_module(SQL)
    state: Any = importlib.import_module("flwr.supercore.corestate.sql_corestate").SqlCoreState
    monkeypatch.setattr(module, "SQLITE_PRAGMAS", module.SQLITE_PRAGMAS)
    monkeypatch.setattr(state, "_cleanup_expired_task_tokens", state._cleanup_expired_task_tokens)
    superlink.tune_database()
    return state


def test_sqlite_waits_five_minutes_for_a_lock(tmp_path: Path, tuned: Any) -> None:
    with _link_state(tmp_path).session() as session:
        connection = session.connection()
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 300_000
        assert connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == 1_024
        assert connection.exec_driver_sql("PRAGMA page_size").scalar() == 65_536
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # Flower's own: NORMAL
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_control_stock_sqlite_gives_up_after_five_seconds(tmp_path: Path) -> None:
    """Negative control: what `tune_database` changes."""
    with _link_state(tmp_path).session() as session:
        connection = session.connection()
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 5_000
        assert connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == 1_000


def test_lost_tasks_are_looked_for_once_a_second(tmp_path: Path, tuned: Any) -> None:
    from sqlalchemy import event

    state = _link_state(tmp_path)
    updates: list[str] = []
    event.listen(
        state._engine,
        "before_cursor_execute",
        lambda *call: updates.append(call[2]) if call[2].startswith("UPDATE task") else None,
    )
    state._cleanup_expired_task_tokens()
    first = len(updates)
    assert first >= 2
    for _ in range(20):
        state.get_run_status({1})
    assert len(updates) == first
    time.sleep(superlink.TASK_CLEANUP_SECONDS)
    state.get_run_status({1})
    assert len(updates) == 2 * first


def _link_state(folder: Path) -> Any:
    from flwr.server.superlink.linkstate import LinkStateFactory
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.superlink.federation import NoOpFederationManager

    database = folder / "state.db"
    state = LinkStateFactory(str(database), NoOpFederationManager(), ObjectStoreFactory()).state()
    assert sqlite3.connect(database).execute("select count(*) from sqlite_master").fetchone()[0] > 0
    return state


def command_line() -> Any:
    """Return the module behind `flower-superlink`; its package hides it under the function of the same name."""
    importlib.import_module("flwr.superlink.cli")
    return sys.modules["flwr.superlink.cli.flower_superlink"]


@pytest.fixture(scope="module")
def door() -> Iterator[Any]:
    """Flower's real app, created through the patched command-line path, with authentication on."""
    main: Any = importlib.import_module("flwr.superlink.main")
    loader = importlib.import_module("flwr.superlink.config_loader")
    stock, layers = main.create_app, main._get_middleware
    superlink.close_door()
    try:
        yield main.create_app(
            loader.SuperLinkLifespanConfig(
                control_address="127.0.0.1:0",
                health_server_address=None,
                host="127.0.0.1",
                port=0,
                insecure=True,
                certificates=None,
                superexec_auth_secret=b"s" * 32,
                authn_plugin=loader.load_control_authn_plugin(),
                event_log_plugin=None,
                fleet_event_log_plugin=None,
                enable_event_log=False,
                artifact_provider=None,
                enable_supernode_auth=True,
                fleet_api_type="grpc-rere",
                fleet_api_address=None,
                simulation=False,
                ssl_ca_certfile=None,
                ssl_certfile=None,
                ssl_keyfile=None,
                database=":flwr-in-memory:",
                isolation="process",
                runtime_dependency_install=False,
            ),
            command_line().SuperLinkLifespan,
        )
    finally:
        main.create_app, main._get_middleware = stock, layers


def _ask(
    app: Any, method: str, path: str, peer: tuple[str, int], content: bytes = b"", **headers: str
) -> int:
    async def request() -> int:
        transport = httpx.ASGITransport(app=app, client=peer, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://coordinator") as client:
            url = httpx.URL(f"http://coordinator{path}")
            answer = await client.request(method, url, headers=headers, content=content)
            return answer.status_code

    return anyio.run(request)


CLOSED = [
    "/health",
    "/docs",
    "/openapi.json",
    "/v1/control/start-run",
    "/v1/control/register-node",
    "/v1/runtime/acquire-task",
    "//v1/control/register-node",
    "/v1/fleet/../control/register-node",
    "/v1/fleet/%2e%2e/control/register-node",
    "/v1/fleet",
    "/",
]


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_outsiders_meet_404_everywhere_but_the_fleet(door: Any, method: str, path: str) -> None:
    assert _ask(door, method, path, REMOTE) == 404
    forged = {"x-forwarded-for": "127.0.0.1", "forwarded": "for=127.0.0.1"}
    assert _ask(door, method, path, REMOTE, **forged) == 404


def test_control_the_door_is_what_closes(door: Any) -> None:
    """Negative control: the same paths answer this machine, and the fleet answers outsiders."""
    assert _ask(door, "GET", "/health", LOCAL) == 200
    assert _ask(door, "POST", "/v1/control/register-node", LOCAL) not in (404, 405)
    assert _ask(door, "POST", "/v1/fleet/pull-messages", REMOTE) not in (404, 405)


def test_layers_that_act_below_one_path_are_still_flowers(door: Any) -> None:
    """A layer is passed by for other paths only where its own source does nothing there."""
    main: Any = importlib.import_module("flwr.superlink.main")
    stock = {layer.cls.__name__: layer.cls for layer in main._get_middleware.__closure__[0].cell_contents()}
    assert set(superlink.PATH_OF_LAYER) <= set(stock)
    for name, path in superlink.PATH_OF_LAYER.items():
        source = inspect.getsource(stock[name].dispatch)
        if path == superlink.RUNTIME_PATH:
            # acts on the answers to two runtime requests, and with tracing switched on
            assert set(re.findall(r"isinstance\(result, (\w+)\)", source)) == {
                "AcquireTaskResponse",
                "PullTaskInputResponse",
            }
        elif path == superlink.CONTROL_PATH:
            assert "_is_control_path(" in source or "_is_control_sensitive_route(" in source
        else:
            assert f'request.url.path.startswith("{path}")' in source
    control: Any = importlib.import_module("flwr.superlink.routers.control.middlewares")
    assert control._is_control_path(superlink.CONTROL_PATH)
    assert not control._is_control_path("/v1/fleet/x")
    assert all(path.startswith(superlink.CONTROL_PATH) for _, path in control.CONTROL_SENSITIVE_ROUTE_KEYS)
    kept = [layer for layer in main._get_middleware() if layer.cls.__name__ != "OnlyBelow"]
    assert len(kept) == len(stock) - len(superlink.PATH_OF_LAYER)


def test_fleet_asks_for_a_signature_and_control_stays_guarded(door: Any) -> None:
    request = PullMessagesRequest(node=Node(node_id=1)).SerializeToString()
    headers = {"content-type": PROTOBUF_MEDIA_TYPE}
    assert _ask(door, "POST", "/v1/fleet/pull-messages", REMOTE, request, **headers) == 401


def test_task_without_the_secret_is_refused_on_this_machine_too(door: Any) -> None:
    request = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]).SerializeToString()
    headers = {"content-type": PROTOBUF_MEDIA_TYPE}
    assert _ask(door, "POST", "/v1/runtime/acquire-task", LOCAL, request, **headers) == 401


def test_adapter_is_the_only_file_of_the_server_with_private_imports() -> None:
    import ast

    allowed = {"flwr", "flwr.app", "flwr.serverapp", "flwr.simulation"}
    root = Path(superlink.__file__).parent
    for path in sorted(root.rglob("*.py")):
        if path.name == "superlink.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            private = [name for name in names if name.split(".")[0] == "flwr" and name not in allowed]
            assert not private, f"{path.name} imports {private}"


def test_help_is_fast_because_nothing_heavy_is_imported() -> None:
    code = "import sys, server.cli; print([m for m in ('torch', 'flwr', 'grpc', 'ray') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"


def test_the_supervisor_stays_small() -> None:
    """It only looks after others, for months: without torch it holds 60 MB instead of 570."""
    code = "import sys, server.supervisor; print([m for m in ('torch', 'flwr', 'ray') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"
