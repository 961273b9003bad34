"""ASGI middleware around Flower's SuperLink: who may ask for what, and how large bodies are handed on."""

from __future__ import annotations

import ipaddress
from typing import Final

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FLEET_PATH: Final = "/v1/fleet/"
PIECE_BYTES: Final = 4 * 1024 * 1024
"""Least size of a body's pieces but the last; a sender without an account holds no more than about this."""


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


class LargePieces:
    """ASGI middleware: a request's body comes in few large pieces instead of many of 64 KiB.

    Each of Flower's layers starts a task group for every piece, which costs more than the transfer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on with a `receive` that joins pieces."""

        async def joined() -> Message:
            message = await receive()
            if message["type"] != "http.request" or not message.get("more_body"):
                return message
            pieces, size = [message["body"]], len(message["body"])
            while message.get("more_body") and size < PIECE_BYTES:
                message = await receive()
                if message["type"] != "http.request":  # the sender is gone
                    return message
                pieces.append(message["body"])
                size += len(message["body"])
            return {**message, "body": b"".join(pieces)}

        await self._app(scope, joined if scope["type"] == "http" else receive, send)


class OnlyBelow:
    """ASGI middleware that sends requests below one path through another middleware and the rest past it.

    Args:
        app: What both ways lead to.
        prefix: The path; the wrapped middleware must do nothing for any other.
        middleware: The wrapped one.
    """

    def __init__(self, app: ASGIApp, prefix: str, middleware: Middleware) -> None:
        self._app, self._prefix = app, prefix
        self._wrapped: ASGIApp = middleware.cls(app, *middleware.args, **middleware.kwargs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Choose the way by the path."""
        below = scope["type"] != "http" or scope["path"].startswith(self._prefix)
        await (self._wrapped if below else self._app)(scope, receive, send)
