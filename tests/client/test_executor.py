"""The executor against a SuperNode's real runtime API: one process, replies always, foreign code never."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient

from client import executor
from client.executor import ForeignCodeError, Stage, refuse_code
from client.refusal import refusal_of
from semc.protocol import RefusalCode
from tests.client.loopback_supernode import SECRET, LoopbackSuperNode, bundle, supernode


@contextmanager
def worker(
    node: LoopbackSuperNode, app: ClientApp, stages: list[Stage] | None = None
) -> Iterator[threading.Thread]:
    stop = threading.Event()
    report: Callable[[Stage], None] = (stages if stages is not None else []).append
    arguments = (node.address, SECRET, app, refusal_of, stop, 0.02, report)
    thread = threading.Thread(target=executor.serve, args=arguments, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(10)


def answering(answer: Callable[[Message], RecordDict]) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, _context: object) -> Message:
        return Message(answer(message), reply_to=message)

    return app


def payload(size: int, fill: int = 0) -> RecordDict:
    data = bytes([fill]) + os.urandom(size - 1)
    return RecordDict({"arrays": ArrayRecord({"shared": Array("uint8", (size,), "semc", data)})})


def test_ten_messages_one_process_little_time() -> None:
    app = answering(lambda message: RecordDict({"metrics": MetricRecord({"pid": os.getpid()})}))
    seconds, stages = [], list[Stage]()
    with supernode() as node, worker(node, app, stages):
        for number in range(10):
            started = time.monotonic()
            node.give_task()
            node.give_message(payload(10_000), number)
            assert not node.reply().has_error()
            seconds.append(time.monotonic() - started)
    assert median(seconds) < 1.0
    assert stages[1:5] == [Stage.PULLING, Stage.WORKING, Stage.PUSHING, Stage.IDLE]


def test_a_message_later_than_its_task_is_waited_for() -> None:
    app = answering(lambda message: RecordDict())
    with supernode() as node, worker(node, app):
        node.give_task()
        time.sleep(0.3)
        node.give_message(payload(100))
        assert not node.reply().has_error()


def test_an_exception_leaves_as_its_code_and_the_next_message_is_served() -> None:
    def fail(message: Message) -> RecordDict:
        if message.metadata.group_id == "1":
            raise FileNotFoundError("/data/mueller.png")
        return RecordDict()

    with supernode() as node, worker(node, answering(fail)):
        node.give_task()
        node.give_message(payload(100), 1)
        reply = node.reply()
        assert (reply.error.code, reply.error.reason) == (2, RefusalCode.INTERNAL.value)
        node.give_task()
        node.give_message(payload(100), 2)
        assert not node.reply().has_error()


def test_code_in_the_bundle_is_refused_and_never_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    called: list[Message] = []

    def never(message: Message) -> RecordDict:
        called.append(message)
        return RecordDict()

    hostile = bundle(("pyproject.toml", "study.yaml", "client/app.py"))
    with supernode(hostile) as node, worker(node, answering(never)):
        node.give_task()
        node.give_message(payload(100))
        assert node.reply().error.reason == RefusalCode.STUDY.value
    assert not called
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.py", "a/B.PY", "x.pyc", "lib.so", "evil.pth"])
def test_every_kind_of_code_is_refused(name: str) -> None:
    with pytest.raises(ForeignCodeError):
        refuse_code(bundle(("study.yaml", name)))


def test_a_plain_bundle_passes_and_a_broken_one_does_not() -> None:
    refuse_code(bundle())
    with pytest.raises(ForeignCodeError):
        refuse_code(b"not an archive")


def test_a_device_failure_ends_the_worker_after_its_reply() -> None:
    def fail(message: Message) -> RecordDict:
        raise RuntimeError("CUDA error: device-side assert triggered")

    with supernode() as node, worker(node, answering(fail)) as thread:
        node.give_task()
        node.give_message(payload(100))
        assert node.reply().error.reason == RefusalCode.DEVICE.value
        thread.join(10)
        assert not thread.is_alive()


def test_a_reply_that_cannot_be_sent_is_told_as_a_lost_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "_OUTAGE_SECONDS", 0.5)
    stages: list[Stage] = []
    with supernode() as node:

        def vanish(message: Message) -> RecordDict:
            node.close()
            return RecordDict()

        with worker(node, answering(vanish), stages):
            node.give_task()
            node.give_message(payload(100))
            deadline = time.monotonic() + 30
            while Stage.LOST not in stages:
                assert time.monotonic() < deadline, stages
                time.sleep(0.02)
    assert stages[: stages.index(Stage.LOST)] == [Stage.IDLE, Stage.PULLING, Stage.WORKING, Stage.PUSHING]


def test_nobody_without_the_secret_gets_a_task() -> None:
    with supernode() as node:
        node.give_task()
        version = RuntimeVersionHttpInterceptor(component_name="flwr-clientapp")
        with (
            RuntimeHttpClient.from_server_address(node.address, True, None, [version]) as stranger,
            pytest.raises(httpx.HTTPStatusError) as caught,
        ):
            stranger.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
    assert caught.value.response.status_code == 401


def test_refused_messages_leave_no_memory_behind() -> None:
    def refuse(message: Message) -> RecordDict:
        raise ValueError

    logging.disable(logging.CRITICAL)  # pytest keeps log records, whose tracebacks keep the messages
    tracemalloc.start()
    stages: list[Stage] = []
    try:
        with supernode() as node, worker(node, answering(refuse), stages):
            sizes = []
            for number in range(5):
                node.give_task()
                node.give_message(payload(4 << 20, number), number)
                assert node.reply().has_error()
                while stages[-1] is not Stage.IDLE:
                    time.sleep(0.01)
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
        logging.disable(logging.NOTSET)
    assert sizes[-1] - sizes[0] < 8 << 20, "two kept messages would be as much"
