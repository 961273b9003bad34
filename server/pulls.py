"""Replies are fetched beside the round loop: one that takes an hour to arrive holds up no other.

Flower's pull blocks until a reply's upload is complete. Each fetch has a thread; two at a time may be under way or
waiting to be looked at, so that few replies are in memory. A fetch that lasts is an upload over a thin line, holds
little, and no longer counts.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import httpx
from flwr.app import Message

_AT_A_TIME: Final = 2
LASTING_SECONDS: Final = 10.0
"""A fetch that takes longer waits for an upload."""


@dataclass(frozen=True)
class Look:
    """What came of asking for one message's reply."""

    message_id: str
    reply: Message | None
    """None where there is none yet, or it was not asked for any more."""
    unreadable: bool = False
    """There is one that Flower cannot read."""
    error: BaseException | None = None
    """What ends the round loop, to be raised in it."""


class Pulls:
    """Asks for replies in daemon threads; one that never comes back keeps no process alive.

    Args:
        pull: Flower's call.
        wanted: Whether a message's reply may be asked for at this moment: its site is online.
    """

    def __init__(self, pull: Callable[[list[str]], Iterable[Message]], wanted: Callable[[str], bool]) -> None:
        self._pull, self._wanted = pull, wanted
        self._change = threading.Condition()
        self._waiting: dict[str, None] = {}
        self._fetching: dict[str, float] = {}
        self._done: deque[Look] = deque()
        self._closed = False

    def ask(self, message_id: str) -> None:
        """Look for a reply soon, unless that is under way."""
        with self._change:
            if not self._is_known(message_id):
                self._waiting[message_id] = None
            self._start_some()

    def next(self, seconds: float) -> Look | None:
        """Return the next look's outcome; None where none came in this time."""
        with self._change:
            self._start_some()
            self._change.wait_for(lambda: bool(self._done), timeout=max(0.0, seconds))
            if not self._done:
                return None
            look = self._done.popleft()
            self._start_some()
            return look

    def lasts(self, message_id: str) -> bool:
        """Whether its reply is being fetched for so long that its upload must be under way."""
        with self._change:
            return self._is_lasting(message_id)

    def is_due(self, message_id: str) -> bool:
        """Whether the outcome of a look for it will be known soon."""
        with self._change:
            return self._is_known(message_id) and not self._is_lasting(message_id)

    def close(self) -> None:
        """Begin no fetch any more, and drop what those under way bring."""
        with self._change:
            self._closed = True
            self._waiting.clear()
            self._done.clear()

    def _is_known(self, message_id: str) -> bool:
        return (
            message_id in self._waiting
            or message_id in self._fetching
            or any(look.message_id == message_id for look in self._done)
        )

    def _is_lasting(self, message_id: str) -> bool:
        since = self._fetching.get(message_id)
        return since is not None and time.monotonic() - since > LASTING_SECONDS

    def _start_some(self) -> None:
        """Begin fetches as long as few replies can be in memory."""
        while self._waiting and not self._closed:
            brief = sum(not self._is_lasting(message_id) for message_id in self._fetching)
            if brief + len(self._done) >= _AT_A_TIME:
                return
            message_id = next(iter(self._waiting))
            del self._waiting[message_id]
            self._fetching[message_id] = time.monotonic()
            threading.Thread(target=self._fetch, args=(message_id,), name="pull", daemon=True).start()

    def _fetch(self, message_id: str) -> None:
        look = self._look(message_id)
        with self._change:
            del self._fetching[message_id]
            if not self._closed:
                self._done.append(look)
            self._change.notify_all()

    def _look(self, message_id: str) -> Look:
        try:
            if not self._wanted(message_id):
                return Look(message_id, None)
            return Look(message_id, next(iter(self._pull([message_id])), None))
        except httpx.HTTPError as error:
            return Look(message_id, None, error=error)
        except Exception:
            return Look(message_id, None, unreadable=True)  # one site's fault ends no study
        except BaseException as error:
            return Look(message_id, None, error=error)
