"""A whole federation as real processes on loopback: one coordinator, N hospitals, TLS and registered keys.

Only the programs that hospitals and coordinators run are used, by their command lines, so a rehearsal proves what a
deployment does. Every process started here is ended here, by its id.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import yaml

from semc.config import load_site
from semc.exit_codes import ExitCode, SemcError
from server.health import Health, ask_health
from server.home import Home

GRACE_SECONDS = 15.0


class Rehearsal:
    """Context manager that enrols sites and keeps coordinator and hospitals running.

    Args:
        folder: Where the coordinator's home and the logs go.
        site_files: Site name to site file; each gets its coordinator, ports and key.
        num_examples: Site name to training images, for the enrolment record.
        poll_seconds: How often idle processes ask for work.
        environment: Added to this process's own for every process started here.
    """

    def __init__(
        self,
        folder: Path,
        site_files: dict[str, Path],
        num_examples: dict[str, int],
        poll_seconds: float = 0.1,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.home = folder.resolve() / "coordinator"
        self.logs = folder.resolve() / "logs"
        self._site_files = site_files
        self._num_examples = num_examples
        self._poll_seconds = poll_seconds
        self._environment = {**os.environ, **(environment or {})}
        self._commands: dict[str, tuple[str, ...]] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._files = ExitStack()

    def __enter__(self) -> Rehearsal:
        self.logs.mkdir(parents=True, exist_ok=True)
        try:
            self._start_coordinator()
            with ThreadPoolExecutor(len(self._site_files)) as pool:
                list(pool.map(self._enrol, self._site_files))
            for name, file in self._site_files.items():
                self._start(name, ["semc-client", "--site", str(file)])
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run(self, study_file: Path, *, quiet: bool = False) -> int:
        """Run a study through the coordinator's command line; returns its exit code.

        Raises:
            SemcError: What a process said that ended before the study did.
        """
        with self.start_run(study_file, quiet=quiet) as run:
            while run.poll() is None:
                for name, process in self._processes.items():
                    if process.poll() is not None:
                        run.terminate()
                        raise self._ended(name)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.wait(0.5)
        return run.returncode

    def start_run(self, study_file: Path, *, quiet: bool = False) -> subprocess.Popen[bytes]:
        """Start a study through the coordinator's command line and return the process that follows it."""
        command = [*program("semc-server"), "run", str(study_file), "--home", str(self.home)]
        # its table on standard output would come before the sites alone are known
        return subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if quiet else None,
            env=self._environment,
        )

    def kill(self, name: str) -> None:
        """Kill "coordinator" or a site as a crash would: at once, nothing is ended in order."""
        self._processes[name].kill()
        self._processes[name].wait()

    def start_again(self, name: str) -> None:
        """Start "coordinator" or a site that has ended, by the same command."""
        self._start(name, self._commands[name])
        if name == "coordinator":
            self._wait_until_ready()

    def has_ended(self, name: str) -> bool:
        """Whether "coordinator" or a site runs no more."""
        return self._processes[name].poll() is not None

    def stop(self) -> None:
        """End every process started here: SIGTERM, a grace period, then SIGKILL."""
        for process in reversed(self._processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        for process in self._processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        self._files.close()

    def pid(self, name: str) -> int:
        """Return the process id of "coordinator" or of a site."""
        return self._processes[name].pid

    def _start_coordinator(self) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._start("coordinator", ["semc-server", "up", "--home", str(self.home), "--address", self.address])
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self._processes["coordinator"].poll() is not None:
                raise self._ended("coordinator")
            if self._ready():
                return
            time.sleep(0.1)
        raise SemcError(
            ExitCode.RUN_FAILED, "The coordinator did not start within 60 s.", "read logs/coordinator.log"
        )

    def _ready(self) -> bool:
        try:
            endpoint = Home(self.home).endpoint()
        except SemcError:
            return False  # not written yet
        return ask_health(endpoint.health_address) is Health.SERVING

    def _ended(self, name: str) -> SemcError:
        """Return the error of a process that ended too early: its last line."""
        lines = (self.logs / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return SemcError(
            ExitCode.RUN_FAILED,
            f"The process of '{name}' ended: {lines[-1] if lines else 'without a word'}",
            f"read logs/{name}.log",
        )

    def _enrol(self, name: str) -> None:
        file = self._site_files[name]
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        content["coordinator"] = {"address": self.address, "root_certificates": str(self.home / "ca.crt")}
        content["runtime_port"] = free_port()
        content["poll_seconds"] = self._poll_seconds
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        site = load_site(file)
        if not site.private_key.exists():
            _check(["semc-client", "--site", str(file), "keygen"])
        public_key = site.private_key.with_name(site.private_key.name + ".pub")
        images = str(self._num_examples[name])
        _check(
            [
                "semc-server",
                "enrol",
                name,
                "--home",
                str(self.home),
                "--public-key",
                str(public_key),
                "--images",
                images,
            ]
        )

    def _start(self, name: str, arguments: Sequence[str]) -> None:
        log = self._files.enter_context((self.logs / f"{name}.log").open("ab"))
        self._commands[name] = tuple(arguments)
        command, *rest = arguments
        self._processes[name] = subprocess.Popen(
            [*program(command), *rest],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=self._environment,
        )


def program(name: str) -> list[str]:
    """Return the command of an installed console script, beside the running interpreter."""
    return [str(Path(sys.executable).parent / name)]


def free_port() -> int:
    """Return a loopback port nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _check(arguments: Sequence[str]) -> None:
    """Run a command to its end; its last line becomes the error where it fails."""
    command, *rest = arguments
    done = subprocess.run([*program(command), *rest], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["no output"]
        raise SemcError(
            ExitCode.of_process(done.returncode),
            f"`{command} {rest[0]}` failed: {last[0]}",
            "read the logs folder",
        )


def read_result(home: Path) -> dict[str, object]:
    """Return the content of the newest run's result.json in a coordinator's home."""
    results = sorted(home.glob("runs/*/result.json"), key=lambda path: path.stat().st_mtime)
    if not results:
        raise SemcError(ExitCode.RUN_FAILED, "The coordinator wrote no result.", "read logs/coordinator.log")
    content: dict[str, object] = json.loads(results[-1].read_text(encoding="utf-8"))
    return content
