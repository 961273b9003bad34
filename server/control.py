"""The SuperLink's Control API through Flower's own command line, on this machine only.

Each call is one short process (about 0.7 s). Its JSON is the last thing printed; other text may come before
it.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from semc.exit_codes import ExitCode, SemcError
from server.home import Home
from server.process import flower_environment, python_module
from server.registry import openssh_text

CONNECTION: Final = "semc"
_TIMEOUT_SECONDS: Final = 120.0
_LOOPBACK_ONLY: Final = "start the coordinator with `semc-server up` and run this on the same machine"


@dataclass(frozen=True)
class RunStatus:
    """What Flower says of a run."""

    run_id: str
    status: str
    """pending | starting | running | finished:completed | finished:failed | finished:stopped"""
    details: str

    @property
    def finished(self) -> bool:
        """Whether it will not change any more."""
        return self.status.startswith("finished")


class Control:
    """Commands for the SuperLink of a home.

    Args:
        home: The coordinator's home; its `endpoint.json` says where the SuperLink listens.
        patience_seconds: Longest wait for an answer.
    """

    def __init__(self, home: Home, patience_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._home, self._patience = home, patience_seconds

    def connect(self) -> None:
        """Write the connection that Flower's command line reads.

        Raises:
            SemcError: SERVER_UNREACHABLE where this home has no coordinator.
        """
        endpoint = self._home.endpoint()
        self._home.flower.mkdir(parents=True, exist_ok=True)
        certificate = json.dumps(str(self._home.ca_certificate.resolve()))  # a JSON string is a TOML string
        (self._home.flower / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n\n'
            f'[superlink.{CONNECTION}]\naddress = "{endpoint.address}"\nroot-certificates = {certificate}\n',
            encoding="utf-8",
        )

    def register(self, site: str, public_key: str) -> int:
        """Register a site's key; return the number of its node.

        Raises:
            SemcError: KEY_INVALID where the SuperLink refuses the key, SERVER_UNREACHABLE.
        """
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{site}.pub"
            file.write_text(openssh_text(public_key), encoding="ascii")
            answer = self._call(
                ExitCode.KEY_INVALID,
                f"The SuperLink did not accept the key of site '{site}'",
                ("supernode", "register", str(file), CONNECTION, "--name", site),
            )
        return int(answer["node-id"])

    def unregister(self, node_id: int) -> None:
        """Take a node's key away; it is turned away at its next request.

        Raises:
            SemcError: KEY_UNREGISTERED where the SuperLink does not know the node, SERVER_UNREACHABLE.
        """
        self._call(
            ExitCode.KEY_UNREGISTERED,
            "The SuperLink did not unregister the node",
            ("supernode", "unregister", str(node_id), CONNECTION),
        )

    def nodes(self) -> dict[int, str]:
        """Return the state (online, offline, registered, unregistered) of every registered node."""
        answer = self._call(
            ExitCode.SERVER_UNREACHABLE,
            "The nodes cannot be listed",
            ("supernode", "list", CONNECTION),
        )
        return {int(node["node-id"]): str(node["status"]) for node in answer["nodes"]}

    def submit(self, bundle: Path) -> str:
        """Start a run from a bundle; return Flower's number of it.

        Raises:
            SemcError: RUN_FAILED where the SuperLink does not take it, SERVER_UNREACHABLE.
        """
        answer = self._call(
            ExitCode.RUN_FAILED, "The SuperLink did not take the run", ("run", str(bundle), CONNECTION)
        )
        return str(answer["run-id"])

    def stop(self, run_id: str) -> None:
        """Have Flower end a run, so that its undelivered messages reach no site any more.

        Raises:
            SemcError: RUN_FAILED where the run has ended already, SERVER_UNREACHABLE.
        """
        self._call(ExitCode.RUN_FAILED, "The SuperLink did not stop the run", ("stop", run_id, CONNECTION))

    def is_under_way(self, run_id: str) -> bool:
        """Whether Flower has a run and has not ended it; one that its database has lost is not under way.

        Raises:
            SemcError: SERVER_UNREACHABLE.
        """
        return any(run.run_id == run_id and not run.finished for run in self.runs())

    def runs(self) -> list[RunStatus]:
        """Return the state of all runs."""
        answer = self._call(ExitCode.SERVER_UNREACHABLE, "The runs cannot be listed", ("list", CONNECTION))
        return [_status(run) for run in answer["runs"]]

    def _call(self, code: ExitCode, problem: str, arguments: tuple[str, ...]) -> dict[str, Any]:
        """Run one command with `--format json` and return what it printed.

        Raises:
            SemcError: `code` where Flower answered with an error, SERVER_UNREACHABLE where nobody answered.
        """
        try:
            done = subprocess.run(
                python_module("flwr.cli.app", *arguments, "--format", "json"),
                env=flower_environment(self._home.flower),
                capture_output=True,
                text=True,
                timeout=self._patience,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SemcError(
                ExitCode.SERVER_UNREACHABLE, f"{problem}: no answer in time.", _LOOPBACK_ONLY
            ) from error
        answer = last_json(done.stdout)
        if answer is not None and answer.get("success") is True:
            return answer
        text = str((answer or {}).get("error-message", "")).strip() or done.stderr.strip()
        line = text.splitlines()[-1].strip() if text else "no reason given"
        if "unavailable" in line.lower() or "connection" in line.lower():
            raise SemcError(ExitCode.SERVER_UNREACHABLE, f"{problem}: nobody answers.", _LOOPBACK_ONLY)
        fix = "see superlink.log in the home's logs folder"
        if "already in use" in line:
            fix = "let the site make a new key with `semc-client keygen`; a revoked key stays revoked"
        raise SemcError(code, f"{problem}: {line}", fix)


def last_json(text: str) -> dict[str, Any] | None:
    """Return the last JSON object in printed text, None where there is none."""
    decoder = json.JSONDecoder()
    found: dict[str, Any] | None = None
    position = text.find("{")
    while position >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
        except ValueError:
            end = position + 1
        else:
            found = value if isinstance(value, dict) else found
        position = text.find("{", end)
    return found


def _status(run: Mapping[str, Any]) -> RunStatus:
    return RunStatus(str(run["run-id"]), str(run["status"]), str(run.get("status-details") or ""))
