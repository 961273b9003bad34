"""The one file of the client that touches Flower's private modules: persistent executor and SuperNode waits.

Flower starts a new process per message and lets it unpack and import what the coordinator shipped. Here one
process takes every message and calls the app that is installed at the site; nothing that arrives is unpacked
or imported. Flower is pinned; `tests/contracts/test_flower_client.py` fails loudly on any other version.

A task goes through eight calls at the SuperNode: AcquireTask, heartbeats, PullTaskInput, PullMessages,
PullObject, ConfirmMessageReceived, PushMessages with PushObject, PushTaskOutput. Two orders matter: the
message is pulled fully even to refuse it, and the reply is pushed before the task is closed. Otherwise the
SuperNode waits for ever.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import signal
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from enum import StrEnum
from types import FrameType
from typing import Final, NoReturn

import httpx
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode, SubStatus
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.exit import add_exit_handler
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    pull_and_inflate_object_from_tree,
    pull_objects,
)
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.retry import RetryInvoker, exponential
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from client.patience import Patience
from semc.protocol import RefusalCode

SHORTEST_POLL_SECONDS: Final = 0.1
"""First wait of a SuperNode that found no work; each request is signed and costs the SuperLink a transaction."""
SHORTEST_WORKER_POLL_SECONDS: Final = 0.03
"""First wait of a worker that found no task; the request stays on this machine."""
REPLY_WAIT_SECONDS: Final = 0.05
"""How often a SuperNode looks for its worker's reply, in its own memory; Flower's own wait is 0.5 s."""
FIRST_RETRY_SECONDS: Final = 0.05
"""First wait for an object that is not uploaded yet; Flower's is 1 s, and the first pull usually misses."""
ACQUIRE_TASK: Final = "/flwr.proto.Runtime/AcquireTask"
_OUTAGE_SECONDS: Final = 20.0
_MESSAGE_WAIT_SECONDS: Final = 20.0

log = logging.getLogger(__name__)


class Stage(StrEnum):
    """Where the worker stands; a SuperNode never recovers from a worker lost while pulling or pushing."""

    IDLE = "idle"
    PULLING = "pulling"
    WORKING = "working"
    PUSHING = "pushing"
    LOST = "lost"
    """The task broke off while its SuperNode may still wait for it; idle follows."""


class ForeignCodeError(Exception):
    """The bundle carries Python code; a study is a YAML file and nothing else."""


class _TaskClient(RuntimeHttpClient):
    """A runtime client that waits for the message: the task exists a moment before it does."""

    def PullMessages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:  # noqa: N802
        deadline = time.monotonic() + _MESSAGE_WAIT_SECONDS
        while True:
            response = super().PullMessages(request)
            if response.messages_list or time.monotonic() > deadline:
                return response
            time.sleep(FIRST_RETRY_SECONDS)


def serve(
    address: str,
    secret: bytes,
    app: ClientApp,
    refusal_of: Callable[[Exception], RefusalCode],
    stop: threading.Event,
    longest_poll_seconds: float,
    report: Callable[[Stage], None],
) -> None:
    """Take tasks from a SuperNode until told to stop, or until the device failed; run each in this process.

    Args:
        address: host:port of the SuperNode's loopback runtime API.
        secret: What both processes share, to sign requests for tasks.
        app: The installed app.
        refusal_of: Turns an exception into the one code that may leave the site.
        stop: Ends the loop between two tasks.
        longest_poll_seconds: Longest wait between two requests while there is no task.
        report: Told each change of stage.

    Raises:
        Exception: Anything unforeseen while a message is pulled or a reply pushed; the process must then end,
            and its supervisor restarts the SuperNode too.
    """
    _shorten_first_retry()
    report(Stage.IDLE)
    patience = Patience(SHORTEST_WORKER_POLL_SECONDS, longest_poll_seconds)
    sign = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={ACQUIRE_TASK})
    with _connect(RuntimeHttpClient, address, sign) as client:
        while not stop.is_set():
            try:
                got = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
                if got.HasField("task") and got.token:
                    reason = _run_task_or_lose_it(address, got.token, app, refusal_of, report)
                    report(Stage.IDLE)
                    patience.reset()
                    if reason == RefusalCode.DEVICE:
                        return  # a process that met a CUDA error cannot use the device again
                    continue
            except httpx.HTTPError as error:  # the SuperNode is not there yet, or gone
                log.warning("no SuperNode (%s)", type(error).__name__)
            stop.wait(patience.next_wait())


def _run_task_or_lose_it(
    address: str,
    token: str,
    app: ClientApp,
    refusal_of: Callable[[Exception], RefusalCode],
    report: Callable[[Stage], None],
) -> str:
    """Run one task; tell a broken one that its SuperNode gave up from one it may wait for for ever."""
    try:
        return _run_task(address, token, app, refusal_of, report)
    except (httpx.HTTPError, ObjectPullError) as error:
        log.warning("task lost (%s)", type(error).__name__)
        if not (isinstance(error, httpx.HTTPStatusError) and error.response.is_client_error):
            report(Stage.LOST)
        return ""


def _run_task(
    address: str,
    token: str,
    app: ClientApp,
    refusal_of: Callable[[Exception], RefusalCode],
    report: Callable[[Stage], None],
) -> str:
    """Pull one message, answer it, push the reply, close the task; returns the refusal code, "" for none."""
    lost = threading.Event()
    with _connect(_TaskClient, address, RuntimeTokenHttpInterceptor(token)) as client:
        beats = _heartbeats(client, lost)
        beats.start()
        try:
            report(Stage.PULLING)
            message, context, _run, fab = pull_task_input(client)
            report(Stage.WORKING)
            reply = _answer(app, message, context, fab, refusal_of)
            if lost.is_set():
                log.warning("the SuperNode gave this task up; its result is dropped")
                return ""
            report(Stage.PUSHING)
            reason = reply.error.reason or "" if reply.has_error() else ""
            push_message(client, reply, context)
            push_task_output(client, context, SubStatus.FAILED if reason else SubStatus.COMPLETED, reason)
            return reason
        finally:
            if beats.is_running:
                beats.stop()


def _answer(
    app: ClientApp,
    message: Message,
    context: Context,
    fab: Fab,
    refusal_of: Callable[[Exception], RefusalCode],
) -> Message:
    """Run the installed app; an exception becomes a listed code, its text stays in this site's log."""
    try:
        refuse_code(fab.content)
        return app(message=message, context=context)
    except Exception as error:
        log.exception("the app failed")
        reason = RefusalCode.STUDY if isinstance(error, ForeignCodeError) else refusal_of(error)
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason.value), reply_to=message)


def refuse_code(bundle: bytes) -> None:
    """Refuse a bundle with anything Python could import; it is only listed, never unpacked.

    Raises:
        ForeignCodeError: A member is a Python file, or the bundle is not an archive.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise ForeignCodeError("the bundle is not an archive") from error
    if any(name.lower().endswith((".py", ".pyc", ".pyd", ".so", ".pth")) for name in names):
        raise ForeignCodeError("the bundle carries code")


class Waits:
    """Stands in for `time` in the SuperNode's main loop, whose waits are literals of 3 s and 0.5 s.

    Args:
        longest_poll_seconds: Longest wait between two requests for work.
    """

    def __init__(self, longest_poll_seconds: float) -> None:
        self._patience = Patience(SHORTEST_POLL_SECONDS, longest_poll_seconds)

    def sleep(self, seconds: float) -> None:
        """Wait for work (3 s in Flower) or for the worker's reply (0.5 s)."""
        if seconds < 1:
            self._patience.reset()
            time.sleep(REPLY_WAIT_SECONDS)
        else:
            time.sleep(self._patience.next_wait())


def run_supernode(arguments: Sequence[str], longest_poll_seconds: float) -> NoReturn:
    """Run a SuperNode in this process, with shorter waits; ends the process.

    Args:
        arguments: The command line after the program's name.
        longest_poll_seconds: Longest wait between two requests for work.
    """
    loop = importlib.import_module("flwr.supernode.start_client_internal")
    setattr(loop, "time", Waits(longest_poll_seconds))  # noqa: B010 - the module's own name for `time`
    _shorten_first_retry()
    threading.excepthook = _leave_without_heartbeats
    _survive_further_signals()
    sys.argv = ["flower-supernode", *arguments]
    command = importlib.import_module("flwr.supernode.cli")
    status = 1
    try:
        command.flower_supernode()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    # It returns where its loop met an error. Its HTTP thread, and threads that try again to reach a coordinator,
    # would keep a deaf process alive; what they hold is lost with it either way.
    logging.shutdown()
    os._exit(status)


def _survive_further_signals() -> None:
    """Let a SuperNode that was told to leave tell the coordinator so, however often it is told.

    Flower's handler restores the handlers it found before it leaves. With the default ones a second signal (Ctrl-C
    reaches every process of a terminal, and the supervisor then sends its own) would kill it before it has left, and
    the coordinator would show the site online, and refuse it, for a minute.
    """
    leaving = threading.Event()
    add_exit_handler(leaving.set, run_before_force_exit=True)

    def leave(_number: int, _frame: FrameType | None) -> None:
        if not leaving.is_set():
            raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)


def _leave_without_heartbeats(failure: threading.ExceptHookArgs) -> None:
    """End a SuperNode one of whose threads failed: without heartbeats it polls on, while it is shown offline."""
    if issubclass(failure.exc_type, SystemExit):
        return  # its HTTP server ends so where the port is taken, which the main thread tells
    log.error("a thread of the SuperNode ended (%s); leaving", failure.exc_type.__name__)
    os.kill(os.getpid(), signal.SIGTERM)


def _shorten_first_retry() -> None:
    """Change the defaults Flower binds when its functions are defined."""
    for function in (pull_objects, pull_and_inflate_object_from_tree):
        assert function.__kwdefaults__ is not None
        function.__kwdefaults__["initial_backoff"] = FIRST_RETRY_SECONDS


def _connect(
    kind: type[RuntimeHttpClient], address: str, interceptor: ProtobufClientInterceptor
) -> RuntimeHttpClient:
    """Open a loopback connection that rides out a SuperNode's restart."""
    retry = RetryInvoker(
        lambda: exponential(base_delay=0.1, max_delay=2),
        httpx.TransportError,
        max_tries=None,
        max_time=_OUTAGE_SECONDS,
    )
    return kind.from_server_address(
        address,
        insecure=True,
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"), interceptor],
        retry_invoker=retry,
    )


def _heartbeats(client: RuntimeHttpClient, lost: threading.Event) -> HeartbeatSender:
    """Return a sender that keeps a task's lease; Flower's own would interrupt this process on its loss."""

    def beat() -> bool:  # False = retry now, True = wait for the next beat
        try:
            if not client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success:
                lost.set()
        except httpx.TransportError:
            return False
        except httpx.HTTPStatusError as error:
            if error.response.status_code in (502, 503, 504):
                return False
            lost.set()
        return True

    return HeartbeatSender(beat)
