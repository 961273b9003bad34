"""A hospital of a test: its folder, its running `semc-client`, and what that said."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import yaml

from simulation.rehearsal import free_port
from tests.end_to_end.test_coordinator_up import Coordinator, run

CLIENT = Path(sys.executable).parent / "semc-client"


class Site:
    """A hospital's folder and its running client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "site.yaml"
        self.log = folder / "client.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        with self.log.open("ab") as log:
            command = [CLIENT, "--site", self.file]
            settings = {**os.environ, **(environment or {})}
            self.process = subprocess.Popen(command, stderr=log, stdout=log, env=settings)

    def said(self, text: str) -> int:
        return self.log.read_text().count(text)

    def logged(self, name: str, text: str) -> int:
        path = self.folder / "state" / "logs" / f"{name}.log"
        return path.read_text().count(text) if path.exists() else 0

    def child(self, module: str) -> psutil.Process | None:
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):  # it may end while it is looked at
                if module in child.cmdline():
                    return child
        return None

    def family(self) -> list[psutil.Process]:
        """Return the client's processes, without itself."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def change(self, **settings: object) -> None:
        content = yaml.safe_load(self.file.read_text()) | settings
        self.file.write_text(yaml.safe_dump(content))

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def live_site(folder: Path, hospitals: Path, coordinator: Coordinator, address: str | None = None) -> Site:
    """Make the site `north` of a coordinator, with a key nobody knows yet."""
    shutil.copytree(hospitals / "north", folder / "north")
    site = Site(folder / "north")
    site.change(
        coordinator={
            "address": address or coordinator.address,
            "root_certificates": str(coordinator.home.ca_certificate),
        },
        runtime_port=free_port(),
        poll_seconds=0.1,
    )
    done = run("semc-client", "--site", str(site.folder), "keygen")
    assert done.returncode == 0, done.stderr
    return site


def enrol(coordinator: Coordinator, site: Site) -> None:
    """Register a site's key."""
    key = str(site.folder / "site.key.pub")
    done = coordinator.command("enrol", "north", "--public-key", key, "--images", "20")
    assert done.returncode == 0, done.stderr
