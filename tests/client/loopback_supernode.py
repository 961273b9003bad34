"""A SuperNode's own runtime API and node state on loopback, without a coordinator behind it."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from flwr.app import Context, Message, Metadata, RecordDict
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.start_client_internal import _insert_message

RUN = 11
NODE = 7
SECRET = b"shared by both"


def bundle(names: tuple[str, ...] = ("pyproject.toml", "study.yaml")) -> bytes:
    """Return an archive with members of these names."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return stream.getvalue()


class LoopbackSuperNode:
    """Hands messages to a worker and collects its replies, as the SuperNode's main loop does."""

    def __init__(self, content: bytes) -> None:
        factory = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
        self.state = factory.state()
        self.state.set_node_id(NODE)
        run = Run.create_empty(RUN)
        run.fab_hash = self.state.store_fab(Fab("", content, {}))
        self.state.store_run(run)
        self.state.set_run_series_context(run.series_id, Context(RUN, NODE, {}, RecordDict(), {}))
        self._fab_hash = run.fab_hash
        config = uvicorn.Config(create_app(factory, SECRET), host="127.0.0.1", port=0, log_level="error")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        self.address = f"127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def give_task(self) -> None:
        """Create the task of a message."""
        assert self.state.create_task(TaskType.CLIENT_APP, RUN, self._fab_hash) is not None

    def give_message(self, content: RecordDict, number: int = 1) -> None:
        """Store a message, content and all."""
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN, NODE, 1
        metadata = Metadata(RUN, "", 1, NODE, "", str(number), time.time(), 60.0, "train")
        _insert_message(Message(content, metadata=metadata), self.state, self.state.object_store)

    def reply(self, timeout: float = 20.0) -> Message:
        """Wait for the reply in the node's state and drop it, as after sending."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for message in self.state.get_messages_legacy(is_reply=True):
                found = message.metadata
                self.state.delete_messages(message_ids=[found.message_id, found.reply_to_message_id])
                return message
            time.sleep(0.005)
        raise TimeoutError("no reply")

    def close(self) -> None:
        """End the server."""
        self._server.should_exit = True
        self._thread.join(5)


@contextmanager
def supernode(content: bytes | None = None) -> Iterator[LoopbackSuperNode]:
    """Run a SuperNode's runtime API for the length of a block."""
    node = LoopbackSuperNode(bundle() if content is None else content)
    try:
        yield node
    finally:
        node.close()
