"""A TCP forwarder that behaves like a bad link: slow, thin, cut, dead at one end.

It runs in a thread of the test and forwards bytes between one hospital and the coordinator, TLS untouched. A blackout
is imitated by reading nothing: what was sent waits in the senders' buffers and arrives after it, as TCP's
retransmissions would.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from enum import StrEnum
from typing import Any

_PIECE = 16 << 10
_PIECES_UNDER_WAY = 16
_SOCKET_BUFFER = 64 << 10
"""Small, as a link's own queue is: with megabytes of it a sender would be done long before anything arrived."""


class Way(StrEnum):
    """Direction, as the hospital sees it."""

    DOWN = "download"
    UP = "upload"


class _Connection:
    """One forwarded connection."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.writers = (near, far)
        self.dead = False
        """Neither end is told anything ever again."""

    def reset(self) -> None:
        """Abort both ends with a TCP reset."""
        for writer in self.writers:
            end: socket.socket = writer.get_extra_info("socket")
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class BadLink:
    """Forwards a free loopback port to an address; a context manager.

    Args:
        address: host:port of the coordinator.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bad link", daemon=True)
        self._connections: set[_Connection] = set()
        self._open = asyncio.Event()
        self._delay = 0.0
        self._bytes_per_second: float | None = None
        self._free_at = 0.0
        self._half_open = False
        self._reset_at: dict[Way, int] = {}
        self.carried = dict.fromkeys(Way, 0)
        """Bytes forwarded since the beginning."""
        self.resets = 0
        """Connections that were reset."""

    def __enter__(self) -> BadLink:
        self._thread.start()
        near = _socket()
        near.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{near.getsockname()[1]}"
        self._server = self._do(asyncio.start_server(self._accept, sock=near))
        self.heal()
        return self

    def __exit__(self, *_error: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in self._connections:
            connection.reset()

    def heal(self) -> None:
        """Be a good link from now on; connections that died stay dead."""

        def good() -> None:
            self._delay, self._bytes_per_second, self._half_open = 0.0, None, False
            self._reset_at.clear()
            self._open.set()

        self._now(good)

    def slow(self, seconds: float) -> None:
        """Hold every piece back for this time, each way."""
        self._delay = seconds

    def thin(self, bits_per_second: float) -> None:
        """Carry no more than this, both ways together."""
        self._bytes_per_second = bits_per_second / 8

    def black_out(self) -> None:
        """Carry nothing until healed; then what waited goes on."""
        self._now(self._open.clear)

    def half_open(self) -> None:
        """Leave every connection standing but dead for ever, and the new ones until healed."""

        def die() -> None:
            self._half_open = True
            for connection in self._connections:
                connection.dead = True

        self._now(die)

    def reset_after(self, way: Way, num_bytes: int) -> None:
        """Reset all connections, once, when this many more bytes have gone one way."""
        self._reset_at[way] = self.carried[way] + num_bytes

    def _now(self, change: Callable[[], None]) -> None:
        """Change the link in its own thread; it is changed when this returns."""

        async def changing() -> None:
            change()

        self._do(changing())

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        far = _socket()
        try:
            await self._loop.sock_connect(far, self._target)
        except OSError:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(sock=far)
        connection = _Connection(writer, far_writer)
        connection.dead = self._half_open
        self._connections.add(connection)
        with suppress(asyncio.CancelledError):  # the test is over
            await asyncio.gather(
                self._pump(connection, Way.UP, reader, far_writer),
                self._pump(connection, Way.DOWN, far_reader, writer),
            )
        self._connections.discard(connection)

    async def _pump(
        self, connection: _Connection, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Read one end into a short queue, from which pieces go on when they are due."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PIECES_UNDER_WAY)
        delivery = asyncio.create_task(self._deliver(connection, way, under_way, writer))
        data = b"begun"
        while data:
            try:
                data = await reader.read(_PIECE)
            except OSError:
                data = b""
            await under_way.put((time.monotonic() + self._delay, data))
        await delivery

    async def _deliver(
        self,
        connection: _Connection,
        way: Way,
        under_way: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
    ) -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(due - time.monotonic())
            await self._open.wait()
            await asyncio.sleep(self._queued(len(data)))
            if connection.dead:
                if not data:
                    return
                continue
            self.carried[way] += len(data)
            if self.carried[way] >= self._reset_at.get(way, self.carried[way] + 1):
                del self._reset_at[way]
                self._reset_all()
            with suppress(OSError, RuntimeError):
                if not data:
                    writer.write_eof() if writer.can_write_eof() else writer.close()
                    return
                writer.write(data)
                await writer.drain()

    def _queued(self, num_bytes: int) -> float:
        """Return how long a piece waits for its turn on a thin link, seconds."""
        if self._bytes_per_second is None:
            return 0.0
        now = time.monotonic()
        self._free_at = max(now, self._free_at) + num_bytes / self._bytes_per_second
        return self._free_at - now

    def _reset_all(self) -> None:
        for connection in list(self._connections):
            connection.reset()
            self.resets += 1


def _socket() -> socket.socket:
    """Return a TCP socket with a small receive buffer; those it accepts have one too."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER)
    made.setblocking(False)
    return made
