"""What `server/superlink.py` relies on in Flower's private modules; another Flower fails here first."""

from __future__ import annotations

import importlib
import inspect
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import flwr
import httpx
import pytest
from flwr.common.constant import ErrorCode
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
    source = inspect.getsource(sys.modules["flwr.superlink.cli.flower_superlink"]._run_superlink_http_api)
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


def test_sqlite_waits_five_minutes_for_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = importlib.import_module(SQL)
    monkeypatch.setattr(module, "SQLITE_PRAGMAS", module.SQLITE_PRAGMAS)
    assert dict(module.SQLITE_PRAGMAS)["busy_timeout"] == "5000"
    others = {key: value for key, value in module.SQLITE_PRAGMAS if key != "busy_timeout"}
    superlink.set_busy_timeout()
    assert dict(module.SQLITE_PRAGMAS) == {**others, "busy_timeout": "300000"}
    state = _link_state(tmp_path)
    with state.session() as session:
        assert session.connection().exec_driver_sql("PRAGMA busy_timeout").scalar() == 300_000


def _link_state(folder: Path) -> Any:
    from flwr.server.superlink.linkstate import LinkStateFactory
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.superlink.federation import NoOpFederationManager

    database = folder / "state.db"
    state = LinkStateFactory(str(database), NoOpFederationManager(), ObjectStoreFactory()).state()
    assert sqlite3.connect(database).execute("select count(*) from sqlite_master").fetchone()[0] > 0
    return state


@pytest.fixture(scope="module")
def door() -> Iterator[Any]:
    """Flower's real app, created through the patched command-line path, with authentication on."""
    main: Any = importlib.import_module("flwr.superlink.main")
    loader = importlib.import_module("flwr.superlink.config_loader")
    stock = main.create_app
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
            sys.modules["flwr.superlink.cli.flower_superlink"].SuperLinkLifespan,
        )
    finally:
        main.create_app = stock


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


def test_peer_without_an_address_is_an_outsider() -> None:
    passed: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["path"])

    async def send(message: Any) -> None:
        pass

    async def ask(client: Any, path: str) -> None:
        await superlink.FleetOnly(inner)({"type": "http", "client": client, "path": path}, None, send)  # type: ignore[arg-type]

    for client in (None, ("not an address", 1), ("::ffff:198.51.100.7", 1), REMOTE):
        anyio.run(ask, client, "/health")
    assert passed == []
    anyio.run(ask, ("::1", 1), "/health")
    assert passed == ["/health"]


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
