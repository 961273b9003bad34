"""The coordinator's home: one folder that holds everything the coordinating centre owns.

```
ca.crt  ca.key          rehearsal authority; every site gets ca.crt (no ca.key: the centre's own authority)
server.crt  server.key  TLS certificate of the SuperLink
receipts.key            signs who took part in which round; a lost one cannot prove its runs
superexec.secret        shared by SuperLink and executor, so that nobody else takes their tasks
state.db                Flower's database: registered keys, runs, messages in flight (weights), mode 0600
registry.json           enrolment record: site, key, number of images, node
ledger-heads.jsonl      heads of the sites' privacy ledgers, as seen in all runs
endpoint.json           where the running coordinator listens
superlink-start         when the SuperLink was started last: what it had in hand before may be lost
flower/                 Flower's own home (FLWR_HOME) with the command line's connection
logs/                   superlink.log, executor.log
runs/<run>/             one folder per run, see server/run_folder.py
lock                    held by `semc-server up`
```
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from semc.exit_codes import ExitCode, SemcError
from semc.whole_file import write_whole
from server.ledger_heads import HEADS_FILE
from server.run_folder import STUDY_FILE, RunFolder

HOME_VARIABLE: Final = "SEMC_SERVER_HOME"
"""Environment variable that names the home."""

RECEIPTS_KEY: Final = "receipts.key"
"""File name of the key that signs receipts: in the home, and in a simulation's run folder."""

_RUN_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}")


@dataclass(frozen=True)
class Endpoint:
    """Where a running coordinator listens, as programs on its own machine reach it."""

    address: str
    """host:port of the SuperLink on the loopback interface."""
    health_address: str
    """host:port of the gRPC health service."""
    pid: int
    """Process of `semc-server up`."""


@dataclass(frozen=True)
class Home:
    """Places inside the coordinator's home."""

    root: Path

    @property
    def ca_certificate(self) -> Path:
        """Certificate that every site needs."""
        return self.root / "ca.crt"

    @property
    def ca_key(self) -> Path:
        """Key of the rehearsal authority; absent where the centre has its own."""
        return self.root / "ca.key"

    @property
    def server_certificate(self) -> Path:
        """Certificate of the SuperLink."""
        return self.root / "server.crt"

    @property
    def server_key(self) -> Path:
        """Key of the SuperLink."""
        return self.root / "server.key"

    @property
    def receipts_key(self) -> Path:
        """Key that signs the rounds' receipts."""
        return self.root / RECEIPTS_KEY

    @property
    def secret(self) -> Path:
        """Secret shared by SuperLink and executor."""
        return self.root / "superexec.secret"

    @property
    def database(self) -> Path:
        """Flower's database."""
        return self.root / "state.db"

    @property
    def ledger_heads(self) -> Path:
        """Heads of the sites' privacy ledgers that any run has seen."""
        return self.root / HEADS_FILE

    @property
    def flower(self) -> Path:
        """Flower's own home."""
        return self.root / "flower"

    @property
    def logs(self) -> Path:
        """Logs of the children."""
        return self.root / "logs"

    @property
    def runs(self) -> Path:
        """Folder of all runs."""
        return self.root / "runs"

    @property
    def _superlink_start(self) -> Path:
        return self.root / "superlink-start"

    @property
    def _endpoint_file(self) -> Path:
        return self.root / "endpoint.json"

    def run(self, name: str) -> RunFolder | None:
        """Return the folder of a run; None where the name, which a bundle brings, could not be one."""
        return RunFolder(self.runs / name) if _RUN_NAME.fullmatch(name) else None

    def new_run_name(self, study_name: str, digest: str) -> str:
        """Return a run name that is not taken: `<study>-<12 digits of the digest>-<number>`."""
        stem = f"{study_name}-{digest[:12]}-"
        numbers = [
            int(number)
            for path in self.runs.glob(f"{stem}*")
            if (number := path.name.removeprefix(stem)).isdecimal()
        ]
        return f"{stem}{max(numbers, default=0) + 1:03d}"

    def all_runs(self) -> list[RunFolder]:
        """Return all runs, the one that was made last at the end."""
        runs = [path for path in self.runs.glob("*") if (path / STUDY_FILE).is_file()]
        return [
            RunFolder(path) for path in sorted(runs, key=lambda path: (path / STUDY_FILE).stat().st_mtime_ns)
        ]

    def latest_run(self) -> RunFolder | None:
        """Return the run that was made last, None where there is none."""
        runs = self.all_runs()
        return runs[-1] if runs else None

    def note_superlink_start(self) -> None:
        """Note that the SuperLink is being started; where the disk is full nobody is told."""
        with suppress(OSError):
            write_whole(self._superlink_start, str(time.time_ns()).encode())

    def superlink_start(self) -> str:
        """Return what names the SuperLink's present start, the same text until it is started again."""
        try:
            return self._superlink_start.read_text(encoding="ascii")
        except (OSError, ValueError):
            return ""

    def write_endpoint(self, endpoint: Endpoint) -> None:
        """Tell other commands where this coordinator listens."""
        write_whole(self._endpoint_file, json.dumps(asdict(endpoint), indent=2).encode())

    def endpoint(self) -> Endpoint:
        """Return where the coordinator of this home listens, running or not.

        Raises:
            SemcError: SERVER_UNREACHABLE where it was never started.
        """
        try:
            return Endpoint(**json.loads(self._endpoint_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise SemcError(
                ExitCode.SERVER_UNREACHABLE,
                f"No coordinator was started with the home '{self.root.name}'.",
                "run `semc-server up --home DIR` first, and give the same --home here",
            ) from error

    @contextmanager
    def lock(self, name: str, *, wait: bool) -> Iterator[None]:
        """Hold one of the home's locks; a process that dies releases it.

        Args:
            name: File name of the lock.
            wait: Wait for another holder instead of refusing.

        Raises:
            SemcError: ALREADY_RUNNING where another process holds it, DISK where the home is not writable.
        """
        import fcntl

        try:
            stream = (self.root / name).open("w")
        except OSError as error:
            raise SemcError(
                ExitCode.DISK,
                f"The coordinator's home cannot be written ({error.strerror}).",
                "create it and make it writable",
            ) from error
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise SemcError(
                    ExitCode.ALREADY_RUNNING,
                    "A coordinator already runs with this home.",
                    "use it, stop it first, or give another --home",
                ) from error
            yield
