"""Replies are fetched beside the round loop: one that takes an hour to arrive holds up no other.

Flower's pull blocks until a reply's upload is complete. Two threads fetch, one message number each, so at most two
replies are in memory at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Final

from flwr.app import Message

_AT_A_TIME: Final = 2


@dataclass(frozen=True)
class Look:
    """What came of asking for one message's reply."""

    message_id: str
    reply: Message | None
    """None where there is none yet, or it was not asked for any more."""
    error: BaseException | None = None


class Pulls:
    """Asks for replies in daemon threads; one that never comes back keeps no process alive.

    Args:
        pull: Flower's call.
        wanted: Whether a message's reply may be asked for at this moment: its site is online.
    """

    def __init__(self, pull: Callable[[list[str]], Iterable[Message]], wanted: Callable[[str], bool]) -> None:
        self._pull, self._wanted = pull, wanted
        self._asked: Queue[str | None] = Queue()
        self._looks: Queue[Look] = Queue()
        self._lock = threading.Lock()
        self._waiting: set[str] = set()
        self._fetching: set[str] = set()
        for number in range(_AT_A_TIME):
            threading.Thread(target=self._work, name=f"pull {number}", daemon=True).start()

    def ask(self, message_id: str) -> None:
        """Look for a reply soon, unless that is under way."""
        with self._lock:
            if message_id in self._waiting | self._fetching:
                return
            self._waiting.add(message_id)
        self._asked.put(message_id)

    def is_fetching(self, message_id: str) -> bool:
        """Whether its reply is being fetched now; that takes long only where an upload is under way."""
        with self._lock:
            return message_id in self._fetching

    def is_waiting(self, message_id: str) -> bool:
        """Whether it was asked for and not looked for yet."""
        with self._lock:
            return message_id in self._waiting

    def next(self, seconds: float) -> Look | None:
        """Return the next look's outcome; None where none came in this time."""
        try:
            return self._looks.get(timeout=max(0.0, seconds))
        except Empty:
            return None

    def close(self) -> None:
        """Let the threads end once they are done with what they fetch."""
        for _ in range(_AT_A_TIME):
            self._asked.put(None)

    def _work(self) -> None:
        while (message_id := self._asked.get()) is not None:
            with self._lock:
                self._waiting.discard(message_id)
                self._fetching.add(message_id)
            look = self._look(message_id)
            with self._lock:
                self._fetching.discard(message_id)
            self._looks.put(look)

    def _look(self, message_id: str) -> Look:
        try:
            if not self._wanted(message_id):
                return Look(message_id, None)
            return Look(message_id, next(iter(self._pull([message_id])), None))
        except BaseException as error:  # raised again in the round loop, whatever it is
            return Look(message_id, None, error)
