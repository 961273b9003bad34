"""Stock Flower as the yardstick: SuperLink, SuperNodes and an echo app as its own documentation starts them.

Each round sends one small array to every node and waits for the echo with `grid.send_and_receive`; the ServerApp
writes the seconds of each round to a file.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from simulation.rehearsal import free_port

PROJECT = """
[project]
name = "stock-echo"
version = "0.1.0"
license = { text = "Apache-2.0" }
dependencies = ["flwr>=1.41.0,<2.0"]
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "stock_echo.server_app:app"
clientapp = "stock_echo.client_app:app"
[tool.flwr.app.config]
out = ""
rounds = 10
nodes = 2
floats = 2500
"""

SERVER_APP = """
import json, time
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MessageType, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    config = context.run_config
    while len(list(grid.get_node_ids())) < config["nodes"]:
        time.sleep(0.1)
    seconds = []
    for number in range(config["rounds"]):
        started = time.perf_counter()
        arrays = ArrayRecord({"x": Array(np.zeros(config["floats"], np.float32))})
        messages = [
            Message(RecordDict({"arrays": arrays}), node, MessageType.TRAIN, group_id=str(number))
            for node in grid.get_node_ids()
        ]
        replies = list(grid.send_and_receive(messages))
        assert len(replies) == config["nodes"] and not any(reply.has_error() for reply in replies)
        seconds.append(time.perf_counter() - started)
    with open(config["out"], "w") as file:
        json.dump(seconds, file)
"""

CLIENT_APP = """
from flwr.app import Message
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    return Message(message.content, reply_to=message)
"""

ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "NO_PROXY": "127.0.0.1,localhost",
}


def seconds_per_round(folder: Path, rounds: int = 10, num_nodes: int = 2) -> list[float]:
    """Run the echo app on stock Flower and return the seconds of each round, first round included."""
    app = folder / "stock-echo"
    (app / "stock_echo").mkdir(parents=True)
    (app / "pyproject.toml").write_text(PROJECT)
    (app / "stock_echo" / "__init__.py").touch()
    (app / "stock_echo" / "server_app.py").write_text(SERVER_APP)
    (app / "stock_echo" / "client_app.py").write_text(CLIENT_APP)
    home, port, out = folder / "home", free_port(), folder / "seconds.json"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    scripts = Path(sys.executable).parent
    environment = {**os.environ, **ENVIRONMENT, "PATH": f"{scripts}:{os.environ['PATH']}"}
    processes: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> None:
        own = {**environment, "FLWR_HOME": str(folder / f"home-{name}-{len(processes)}")}
        log = (folder / f"{name}-{len(processes)}.log").open("wb")
        command = [str(scripts / name), *arguments]
        processes.append(subprocess.Popen(command, env=own, stdout=log, stderr=log, start_new_session=True))

    try:
        start("flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port))
        time.sleep(8)
        for _ in range(num_nodes):
            start(
                "flower-supernode",
                "--insecure",
                "--superlink",
                f"127.0.0.1:{port}",
                "--port",
                str(free_port()),
            )
        run_config = f'out="{out}" rounds={rounds} nodes={num_nodes}'
        subprocess.run(
            [str(scripts / "flwr"), "run", str(app), "bench", "-c", run_config],
            env={**environment, "FLWR_HOME": str(home)},
            check=True,
            capture_output=True,
        )
        deadline = time.monotonic() + 60 + 20 * rounds
        while not out.is_file() and time.monotonic() < deadline:
            time.sleep(0.5)
        return [float(value) for value in json.loads(out.read_text())]
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGTERM)
        for process in processes:
            process.wait(20)
