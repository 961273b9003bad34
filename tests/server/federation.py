"""A small federation for tests: a study, a three-tensor model, and a grid whose sites follow a script.

The grid is a hand-written Flower grid: it stores messages and calls the site's answer when a reply is pulled,
so that a test can let a site be late, go offline, answer garbage or answer twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

import semc
from semc import protocol
from semc.config import StudyConfig, parse_study
from semc.wire import pack, unpack
from server.global_model import GlobalModel
from server.pace import Pace
from server.registry import Enrolment, Registry

SCHEMA = "f" * 64
FAST = Pace(poll=0.001, slowest_poll=0.01, roster=0.002, offline_grace=0.05, retry=0.005)


def tiny_study(**federation: Any) -> StudyConfig:
    """Return a two-class study; keywords overrule its federation section."""
    settings = {
        "sites": ["north", "south", "west"],
        "rounds": 2,
        "deadline_seconds": 5.0,
        "join_timeout_seconds": 2.0,
        **federation,
    }
    return parse_study(
        """
name: tiny
seed: 3
data: {classes: [head, femur], image_size: 32}
model: {backbone: resnet18}
objective: {name: classification}
training: {batch_size: 4, local_steps: 1}
federation: {sites: [a]}
""",
        {f"federation.{key}": value for key, value in settings.items()},
    )


def tiny_model(updated: Sequence[str] = ("conv.weight", "bn.weight", "fc.bias")) -> GlobalModel:
    """Return three tensors, one of them batch norm's; sites send back those in `updated`."""
    tensors = {
        "conv.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "bn.weight": torch.ones(3),
        "fc.bias": torch.tensor([0.5, -0.5]),
    }
    return GlobalModel(
        tensors=tensors,
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        update_shapes={name: tuple(tensors[name].shape) for name in updated},
        schema=SCHEMA,
        batch_norm=frozenset({"bn.weight"}),
    )


def registry_of(sizes: dict[str, int]) -> Registry:
    """Return the enrolment of simulated sites."""
    return Registry({site: Enrolment(public_key=None, num_examples=n) for site, n in sizes.items()})


def set_identity() -> None:
    """Tell Flower who sends messages, as its ServerApp process does."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, 1, 1


Answer = Callable[["ScriptedSite", Message], Message | None]


@dataclass
class ScriptedSite:
    """One site: adds `step` to every tensor it receives, unless its script says otherwise."""

    name: str
    step: float = 1.0
    public_key: bytes = b""
    answer: Answer | None = None
    hello: Answer | None = None
    online: Callable[[], bool] = lambda: True
    activation: str = "first start"
    received: list[Message] = field(default_factory=list)


class ScriptedGrid(Grid):
    """A Flower grid over scripted sites; node i + 2 is site i."""

    def __init__(self, sites: Sequence[ScriptedSite]) -> None:
        set_identity()
        self.sites = {index + 2: site for index, site in enumerate(sites)}
        self.pending: dict[str, Message] = {}
        self.pulled: list[list[str]] = []
        self.pulled_while_offline = 0
        self.pushes: list[list[Message]] = []

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
            NodeInfo(
                node_id=node_id,
                online_until=2e10,
                public_key=site.public_key,
                last_activated_at=site.activation,
            )
            for node_id, site in self.sites.items()
            if site.online()
        ]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        batch = list(messages)
        self.pushes.append(batch)
        identifiers = []
        for message in batch:
            identifier = f"m{len(self.pending)}-{message.metadata.dst_node_id}"
            message.metadata.__dict__["_message_id"] = identifier
            self.pending[identifier] = message
            self.sites[message.metadata.dst_node_id].received.append(message)
            identifiers.append(identifier)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        asked = list(message_ids)
        self.pulled.append(asked)
        replies = []
        for identifier in asked:
            message = self.pending[identifier]
            site = self.sites[message.metadata.dst_node_id]
            self.pulled_while_offline += not site.online()
            script = site.hello if message.metadata.message_type == "query" else site.answer
            reply = (script or honest)(site, message)
            if reply is not None:
                replies.append(reply)
        return replies


def honest(site: ScriptedSite, message: Message) -> Message:
    """Answer as a correct site would."""
    match message.metadata.message_type:
        case "query":
            return Message(hello_record(site.name), reply_to=message)
        case "train":
            return Message(training_record(site, message), reply_to=message)
        case _:
            return Message(RecordDict({protocol.METRICS: metrics_of(site, message)}), reply_to=message)


def hello_record(name: str, **changes: str) -> RecordDict:
    """Return the record of a correct handshake, with changes."""
    entries = {
        protocol.SITE: name,
        protocol.SHARED_SCHEMA: SCHEMA,
        protocol.SOFTWARE_VERSION: semc.__version__,
        protocol.FLOWER_INSTALLED: protocol.FLOWER_VERSION,
    }
    return RecordDict({protocol.CONFIG: ConfigRecord({**entries, **changes})})


def training_record(site: ScriptedSite, message: Message) -> RecordDict:
    """Return the content of a correct training reply."""
    tensors = {name: tensor + site.step for name, tensor in received_tensors(message).items()}
    return RecordDict(
        {protocol.ARRAYS: array_record(pack(tensors, "fp32")), protocol.METRICS: metrics_of(site, message)}
    )


def received_tensors(message: Message) -> dict[str, torch.Tensor]:
    """Return the weights a message carries."""
    record = message.content[protocol.ARRAYS]
    assert isinstance(record, ArrayRecord)
    return unpack(record[protocol.SHARED_TENSORS].data, tiny_model().shapes, "fp32")


def array_record(data: bytes, stype: str = protocol.TENSOR_STYPE) -> ArrayRecord:
    """Return the array record of a payload."""
    array = Array(dtype="uint8", shape=(len(data),), stype=stype, data=data)
    return ArrayRecord({protocol.SHARED_TENSORS: array})


def metrics_of(site: ScriptedSite, message: Message) -> MetricRecord:
    """Return the metrics of a correct reply: counts of the received weights from the second round on."""
    config = message.content[protocol.CONFIG]
    assert isinstance(config, ConfigRecord)
    number = int(config[protocol.SERVER_ROUND])  # type: ignore[arg-type]
    values: dict[str, Any] = {protocol.NUM_EXAMPLES: 10}
    if message.metadata.message_type == "train":
        values |= {protocol.TRAIN_LOSS: 1.0 / number, protocol.TRAIN_STEPS: 1, protocol.TRAIN_SECONDS: 0.1}
    if number > 1:
        values |= {
            protocol.VALIDATION_CONFUSION: [number, 0, 0, number],
            protocol.TEST_CONFUSION: [number, 1, 1, number],
        }
    return MetricRecord(values)


def error_reply(message: Message, code: int, reason: str = "") -> Message:
    """Return a reply that carries an error."""
    return Message(Error(code, reason), reply_to=message)
