"""Flower's transport in one process, with its rules; sites and round loop reach it by a socket on the disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

Letter = tuple[str, int, Message]
"""Number, node, message."""


@dataclass
class _Node:
    activation: str = ""
    online: bool = False
    waiting: list[Letter] = field(default_factory=list)
    """Messages that nobody has fetched yet."""


class PostOffice:
    """Keeps messages and replies; a context manager that serves a socket.

    Args:
        socket: Where; a short path.
        nodes: Numbers of the nodes.
    """

    def __init__(self, socket: Path, nodes: Iterable[int]) -> None:
        self.socket = socket
        self._lock = threading.Lock()
        self._nodes = {node: _Node() for node in nodes}
        self._replies: dict[str, Message] = {}
        self._sent: dict[str, tuple[int, Message]] = {}
        self._numbers = 0
        self.handed_out: list[tuple[int, str]] = []
        """Node and message number, each time one was fetched."""
        self.lose_replies = 0
        """So many of the next replies break off in their upload."""

    def __enter__(self) -> PostOffice:
        self._listener = Listener(str(self.socket), "AF_UNIX", backlog=16)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener.close()

    def went_offline(self, node: int) -> None:
        """A node's process was killed."""
        with self._lock:
            self._nodes[node].online = False

    def forget_run(self) -> None:
        """A new run begins: what the old one had sent reaches nobody any more."""
        with self._lock:
            for node in self._nodes.values():
                node.waiting.clear()
            self._replies.clear()
            self._sent.clear()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection[Any, Any]) -> None:
        with suppress(EOFError, OSError):  # a killed process hangs up
            while True:
                name, arguments = connection.recv()
                with self._lock:
                    answer = getattr(self, f"on_{name}")(*arguments)
                connection.send(answer)

    # --- what a site asks ---

    def on_activate(self, node: int) -> None:
        """Start, or start again: what the node had in hand is forgotten."""
        self._nodes[node].activation, self._nodes[node].online = str(time.monotonic_ns()), True

    def on_fetch(self, node: int) -> Letter | None:
        """Hand out the oldest message, once."""
        waiting = self._nodes[node].waiting
        if not waiting:
            return None
        letter = waiting.pop(0)
        self.handed_out.append((node, letter[0]))
        return letter

    def on_reply(self, number: str, reply: Message) -> None:
        """Take a reply, unless its run is over."""
        if number not in self._sent:
            return
        if self.lose_replies:
            self.lose_replies -= 1
            reply = Message(Error(ErrorCode.MESSAGE_UNAVAILABLE, ""), reply_to=self._sent[number][1])
        self._replies[number] = reply

    # --- what the round loop asks ---

    def on_nodes(self) -> list[tuple[int, str]]:
        """Return number and activation of every node that is online."""
        return [(number, node.activation) for number, node in self._nodes.items() if node.online]

    def on_push(self, letters: list[tuple[int, Message]]) -> list[str]:
        """Take messages; return their numbers."""
        numbers = []
        for node, message in letters:
            self._numbers += 1
            number = f"m{self._numbers}"
            message.metadata.__dict__["_message_id"] = number
            self._sent[number] = (node, message)
            self._nodes[node].waiting.append((number, node, message))
            numbers.append(number)
        return numbers

    def on_pull(self, number: str) -> Message | None:
        """Hand a reply over and forget it; asking for one of a node that is offline loses it for good."""
        node, message = self._sent[number]
        if not self._nodes[node].online:
            del self._sent[number]
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, ""), reply_to=message)
        return self._replies.pop(number, None)


class Counter:
    """One process's way to the post office.

    Args:
        socket: Where it serves.
    """

    def __init__(self, socket: Path) -> None:
        self._connection = Client(str(socket), "AF_UNIX")
        self._lock = threading.Lock()

    def ask(self, name: str, *arguments: object) -> Any:
        """Ask and wait for the answer."""
        with self._lock:
            self._connection.send((name, arguments))
            return self._connection.recv()
