"""What the client's adapter relies on in Flower's private code; another version of Flower fails here."""

from __future__ import annotations

import importlib
import inspect
import re
from importlib.metadata import version

from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, HEARTBEAT_PATIENCE, ErrorCode
from flwr.supercore.constant import HTTP_SERVER_SHUTDOWN_TIMEOUT, TaskType
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.error.catalog import API_ERROR_MAP
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.retry import http_retry
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.runtime import run_clientapp
from flwr.supernode.servicer.runtime import runtime_handlers

from client import coordinator, executor, outbound, supervisor
from client.supernode import Sign, read_sign
from semc.protocol import FLOWER_VERSION

CLOCK_SET_BACK_SECONDS = 120
"""A coordinator whose clock was set back shows a crashed site online for as much longer."""


def source(thing: object) -> str:
    """Return the source text of a function or module."""
    return inspect.getsource(thing)  # type: ignore[arg-type]


def test_the_version_is_the_one_all_this_was_read_in() -> None:
    assert version("flwr") == FLOWER_VERSION == "1.41.0"


def test_names_on_the_wire() -> None:
    assert TaskType.CLIENT_APP == "flwr-clientapp"
    assert TaskType.SERVER_APP == "flwr-serverapp"
    assert ErrorCode.CLIENT_APP_RAISED_EXCEPTION == outbound.APP_RAISED
    assert f'rpc_method="{executor.ACQUIRE_TASK}"' in source(executor.RuntimeHttpClient.AcquireTask)


def test_the_literal_waits_are_where_they_are_shortened() -> None:
    loop = importlib.import_module("flwr.supernode.start_client_internal")
    assert source(loop.start_client_internal).count("time.sleep(3)") == 1
    assert source(loop).count("time.sleep(0.5)") == 2
    assert "import time\n" in source(loop)
    assert set(re.findall(r"\btime\.(\w+)", source(loop))) == {"sleep"}, (
        "its `time` is replaced by sleep alone"
    )


def test_the_first_retry_is_bound_at_definition() -> None:
    assert inflatable_utils.PULL_INITIAL_BACKOFF == 1
    executor._shorten_first_retry()
    for function in (inflatable_utils.pull_objects, inflatable_utils.pull_and_inflate_object_from_tree):
        assert function.__kwdefaults__ is not None
        assert function.__kwdefaults__["initial_backoff"] == executor.FIRST_RETRY_SECONDS
    assert "pull_objects(" in source(inflatable_utils.pull_and_inflate_object_from_tree)


def test_the_message_is_pulled_whole_and_confirmed_before_the_app_runs() -> None:
    text = source(run_clientapp.pull_task_input)
    order = [
        "client.PullTaskInput(",
        "client.PullMessages(",
        "client.PullObject",
        "client.ConfirmMessageReceived",
    ]
    assert [text.index(call) for call in order] == sorted(text.index(call) for call in order)
    assert "No messages received" in text, "why _TaskClient waits"


def test_a_task_exists_before_its_message_does() -> None:
    text = source(start_client_internal._pull_and_store_message)
    assert text.index("state.create_task(") < text.index("state.store_message(message)")


def test_closing_a_task_does_not_answer_its_message() -> None:
    assert "store_message" not in source(runtime_handlers.push_task_output), "why the reply is pushed first"


def test_signs_of_joining_and_of_refusal() -> None:
    assert 'log(INFO, "SuperNode ID: %s", node_id)' in source(start_client_internal.start_client_internal)
    assert read_sign("\x1b[92mINFO \x1b[0m:      SuperNode ID: 123") is Sign.JOINED
    assert ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED == 2004
    assert API_ERROR_MAP[ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED].public_message
    assert 'f"[code: {flower_error.code}]' in source(fleet_http_connection)
    assert read_sign("[code: 2004] Failed to activate SuperNode.") is Sign.NOT_ACTIVATED
    assert "SSL/TLS handshake error detected" in source(http_retry)
    assert read_sign("SSL/TLS handshake error detected.") is Sign.UNTRUSTED
    assert "Connection attempt failed, retrying" in source(http_retry)
    assert read_sign("Connection attempt failed, retrying in 2.00 seconds") is Sign.RETRYING
    assert "Connection successful after" in source(http_retry)
    assert read_sign("Connection successful after 8.01 seconds and 4 tries.") is Sign.ANSWERED
    for what in ("receive", "send"):
        assert f'"Failed to {what} message %s: %s"' in source(start_client_internal)
        assert read_sign(f"Failed to {what} message 0ab1: [SSL] record layer failure") is Sign.MESSAGE_LOST
    assert '"Failed to initialize the connection to the SuperLink.\\n"' in source(fleet_http_connection)
    assert read_sign("Failed to initialize the connection to the SuperLink.") is Sign.NOT_CONNECTED
    command = importlib.import_module("flwr.supernode.cli.flower_supernode")
    assert 'RuntimeError("SuperNode Runtime HTTP API failed to start.")' in source(command)
    assert read_sign("RuntimeError: SuperNode Runtime HTTP API failed to start.") is Sign.PORT_TAKEN


def test_an_unknown_key_and_a_site_still_online_are_refused_alike() -> None:
    text = source(fleet_handlers.activate_node)
    assert text.count("raise ValueError") == 2, "why KnownKey remembers an earlier success"
    assert (
        HEARTBEAT_DEFAULT_INTERVAL * HEARTBEAT_PATIENCE + CLOCK_SET_BACK_SECONDS
        < supervisor.KNOWN_KEY_SECONDS
    )


def test_clock_limits_are_flowers() -> None:
    constants = importlib.import_module("flwr.common.constant")
    assert constants.SYSTEM_TIME_TOLERANCE == coordinator.ALLOWED_AHEAD_SECONDS
    assert constants.TIMESTAMP_TOLERANCE == coordinator.ALLOWED_BEHIND_SECONDS


def test_a_supernode_ends_within_our_grace() -> None:
    assert HTTP_SERVER_SHUTDOWN_TIMEOUT < supervisor.GRACE_SECONDS


def test_a_leaving_supernode_gets_back_the_handlers_it_found() -> None:
    module = importlib.import_module("flwr.supercore.exit.signal_handler")
    text = source(module.register_signal_handlers)
    assert text.index("signal.signal(sig, default_handlers[sig])") < text.index("flwr_exit("), (
        "why a second signal is survived by handlers of our own"
    )
    leaving = importlib.import_module("flwr.supercore.exit.exit").flwr_exit
    text = source(leaving)
    assert text.index("run_before_force_exit=True") < text.index("sys.exit(")


def test_a_heartbeat_that_fails_in_another_way_ends_its_thread() -> None:
    text = source(fleet_http_connection.http_request_response)
    assert "raise RuntimeError(" in text[: text.index("heartbeat_sender = ")], "why the SuperNode then leaves"


def test_the_command_is_a_function() -> None:
    assert inspect.isfunction(importlib.import_module("flwr.supernode.cli").flower_supernode)


def test_a_download_that_is_let_be_when_its_run_ends_is_recognised() -> None:
    """The worker has taken the task by then and would wait for the message's objects for two hours.

    A reply that nobody wants any more is another thing: its task is done.
    """
    loop = importlib.import_module("flwr.supernode.start_client_internal")
    source = inspect.getsource(loop)
    assert source.count('"Run ID %s is not in `RUNNING` status. Ignoring message %s."') == 1
    assert source.count('"Run transitioned to a non-`RUNNING` status while receiving a message. "') == 1
    ended = "Run ID 61371 is not in `RUNNING` status. Ignoring"
    assert read_sign(f"{ended} message b4aeacb0.") is Sign.MESSAGE_LOST
    assert read_sign(f"{ended} reply message b4aeacb0.") is None
    transitioned = (
        "Run transitioned to a non-`RUNNING` status while receiving a message. Ignoring the message."
    )
    assert read_sign(transitioned) is Sign.MESSAGE_LOST
