"""Flower messages and contexts as a SuperNode hands them to an app."""

from __future__ import annotations

import time

from flwr.app import Context, Message, Metadata, RecordDict
from flwr.supercore.task_identity import TaskIdentity

NODE = 7
RUN = 11


def question(content: RecordDict, kind: str) -> Message:
    """Return a message of the coordinator to this node, and set what Flower sets before an app runs."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN, NODE, 1
    metadata = Metadata(
        run_id=RUN,
        message_id="question",
        src_node_id=1,
        dst_node_id=NODE,
        reply_to_message_id="",
        group_id="1",
        created_at=time.time(),
        ttl=60.0,
        message_type=kind,
    )
    return Message(content, metadata=metadata)


def context(partition: int | None = None) -> Context:
    """Return a node's context, in a simulation with its partition."""
    config = {} if partition is None else {"partition-id": partition}
    return Context(run_id=RUN, node_id=NODE, node_config=config, state=RecordDict(), run_config={})
