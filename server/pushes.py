"""Messages are handed to the SuperLink, which may die in the middle of one."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import httpx
from flwr.app import Message
from flwr.serverapp import Grid

log = logging.getLogger(__name__)


def pushed(grid: Grid, messages: Sequence[Message]) -> list[str]:
    """Return the messages' numbers; empty where they could not be handed over and may be again.

    Args:
        grid: Flower's way to the nodes.
        messages: What is sent.

    Raises:
        httpx.HTTPError: The SuperLink answers with an error of its own.
    """
    try:
        return list(grid.push_messages(messages))
    except httpx.HTTPError:
        raise
    except Exception as error:  # Flower's name for a push whose session ended with the SuperLink is private
        log.warning("messages could not be handed over (%s); they are sent again", type(error).__name__)
        return []
