"""What an operator sees: lines in a container's log, one changing line on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from client.console import Console
from client.progress import Progress

SHOW = """
import time
from client.console import Console
from client.progress import Progress
with Console("north") as console:
    console.show(Progress("training", 3, 12, 20))
    time.sleep(0.3)
    console.say("joined the coordinator")
"""


def test_without_a_terminal_only_lasting_lines_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with Console("north") as console:
        for progress in (
            Progress("loading"),
            Progress("training", 3, 12, 20),
            Progress("evaluating", 3),
            Progress("training", 3, 20, 20, loss=0.25),
            Progress("pushing"),
            Progress("idle"),
            Progress("refused", text="E_DATA: error 21 DATA_UNREADABLE: Row 2. Fix: x"),
        ):
            console.show(progress)
        console.say("left the federation")
    assert capsys.readouterr().err.splitlines() == [
        "north: round 3: trained, loss 0.2500",
        "north: declined E_DATA: error 21 DATA_UNREADABLE: Row 2. Fix: x",
        "north: left the federation",
    ]


def test_on_a_terminal_the_present_step_is_shown() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    subprocess.run([sys.executable, "-c", SHOW], stderr=theirs, env=environment, check=True, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    assert "round 3: training 12/20 steps" in shown
    assert "north: joined the coordinator" in shown
