"""The forked processes: a site that answers with the installed app, and the round loop of one run."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from client.app import build_app
from semc.config import StudyConfig
from semc.exit_codes import SemcError
from server.global_model import GlobalModel
from server.pace import Pace
from server.registry import Registry
from server.rounds import run_study
from server.run_folder import RunFolder
from tests.faults.forked.post_office import Counter

PACE = Pace(poll=0.02, slowest_poll=0.05, roster=0.05, offline_grace=60.0, online_margin=0.0, retry=0.05)
TELL = signal.SIGUSR1
"""Has a child print where it stands, should it hang."""
_FOREVER = 2e10


def fork(work: Callable[[], int]) -> int:
    """Run something in a child process that ends with what it returns; return its number."""
    child = os.fork()
    if child:
        return child
    status = 99
    faulthandler.register(TELL)
    try:
        status = work()
    finally:
        os._exit(status)


def serve_site(socket: Path, node: int, site_file: Path) -> int:
    """Answer messages until killed."""
    counter = Counter(socket)
    counter.ask("activate", node)
    app = build_app(lambda _context: site_file)
    context = Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, node, 1
    while True:
        letter = counter.ask("fetch", node)
        if letter is None:
            time.sleep(0.01)
            continue
        number, _, message = letter
        counter.ask("reply", number, app(message, context))


def run_loop(
    socket: Path, study: StudyConfig, registry: Registry, folder: RunFolder, model: GlobalModel
) -> int:
    """Run the study or what is left of it; 0 once it has a result, else the exit code."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    try:
        with folder.lock():
            run_study(OfficeGrid(Counter(socket)), study, registry, folder, model=model, pace=PACE)
    except SemcError as error:
        return int(error.code)
    return 0


class OfficeGrid(Grid):
    """Flower's grid over the post office."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Any:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return [node.node_id for node in self.get_nodes()]

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [
            NodeInfo(node_id=node, online_until=_FOREVER, last_activated_at=activation)
            for node, activation in self._counter.ask("nodes")
        ]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        letters = [(message.metadata.dst_node_id, message) for message in messages]
        numbers: list[str] = self._counter.ask("push", letters)
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = [self._counter.ask("pull", number) for number in message_ids]
        return [reply for reply in replies if reply is not None]
