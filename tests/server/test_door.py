"""The door of the coordinator: who passes, in what pieces a body comes, which layer sees which path."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from starlette.middleware import Middleware

from server.door import PIECE_BYTES, FleetOnly, LargePieces, OnlyBelow

REMOTE = ("198.51.100.7", 40000)
Scope = dict[str, Any]


def _drive(app: Any, scope: Scope, messages: tuple[Scope, ...] = ()) -> None:
    waiting = list(messages)

    async def receive() -> Scope:
        return waiting.pop(0)

    async def send(message: Scope) -> None:
        pass

    anyio.run(app, {"type": "http", **scope}, receive, send)


class Reader:
    """An application that reads its body to the end and remembers the pieces."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ended = ""

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] != "http.request":
                self.ended = message["type"]
                return
            self.pieces.append(message["body"])
            if not message.get("more_body"):
                self.ended = "whole"
                return


def _body(*pieces: bytes) -> tuple[Scope, ...]:
    last = len(pieces) - 1
    return tuple(
        {"type": "http.request", "body": piece, "more_body": index < last}
        for index, piece in enumerate(pieces)
    )


def test_peer_without_an_address_is_an_outsider() -> None:
    passed: list[str] = []

    async def inner(scope: Scope, receive: Any, send: Any) -> None:
        passed.append(scope["path"])

    for client in (None, ("not an address", 1), ("::ffff:198.51.100.7", 1), REMOTE):
        _drive(FleetOnly(inner), {"client": client, "path": "/health"})
    assert passed == []
    _drive(FleetOnly(inner), {"client": ("::1", 1), "path": "/health"})
    assert passed == ["/health"]


def test_small_pieces_come_as_one() -> None:
    reader = Reader()
    _drive(LargePieces(reader), {}, _body(*[bytes([value]) * 65_536 for value in range(20)]))
    assert reader.pieces == [b"".join(bytes([value]) * 65_536 for value in range(20))]
    assert reader.ended == "whole"


@pytest.mark.parametrize("pieces", [(b"",), (b"abc",), (b"", b"x"), (b"a", b"")])
def test_short_bodies_keep_their_content(pieces: tuple[bytes, ...]) -> None:
    reader = Reader()
    _drive(LargePieces(reader), {}, _body(*pieces))
    assert b"".join(reader.pieces) == b"".join(pieces)
    assert reader.ended == "whole"


def test_no_piece_grows_without_end() -> None:
    """A sender that is not yet known must not fill the memory: pieces are handed on, never the whole body."""
    reader, piece = Reader(), b"x" * 65_536
    count = 3 * PIECE_BYTES // len(piece) + 5
    _drive(LargePieces(reader), {}, _body(*[piece] * count))
    assert max(map(len, reader.pieces)) == PIECE_BYTES
    assert sum(map(len, reader.pieces)) == count * len(piece)


def test_sender_that_leaves_is_told_and_its_half_body_is_not_taken_for_whole() -> None:
    reader = Reader()
    half = {"type": "http.request", "body": b"half", "more_body": True}
    _drive(LargePieces(reader), {}, (half, {"type": "http.disconnect"}))
    assert reader.pieces == []
    assert reader.ended == "http.disconnect"


@pytest.mark.parametrize(
    ("path", "seen"),
    [("/v1/control/start-run", ["layer", "app"]), ("/v1/fleet/pull", ["app"]), ("/v1/control", ["app"])],
)
def test_a_layer_sees_its_own_paths_only(path: str, seen: list[str]) -> None:
    calls: list[str] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        calls.append("app")

    class Layer:
        def __init__(self, app: Any, name: str) -> None:
            self._app, self._name = app, name

        async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
            calls.append(self._name)
            await self._app(scope, receive, send)

    _drive(OnlyBelow(app, "/v1/control/", Middleware(Layer, name="layer")), {"path": path})
    assert calls == seen


def test_lifespan_goes_through_every_layer() -> None:
    """Flower's layers may hold resources: start-up and shutdown are not requests and pass no one by."""
    calls: list[str] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        calls.append("app")

    class Layer:
        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
            calls.append("layer")
            await self._app(scope, receive, send)

    _drive(OnlyBelow(app, "/v1/control/", Middleware(Layer)), {"type": "lifespan"})
    assert calls == ["layer", "app"]
