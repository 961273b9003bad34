"""What a coordinator remembers of the sites' ledgers, and how a hospital's new ledger begins on purpose."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from semc.exit_codes import ExitCode
from server.home import Home
from server.ledger_heads import Asked, LedgerHeads
from server.registry import rehearsal_registry

FIRST, SECOND = Asked("d" * 64, 1, "a" * 64), Asked("d" * 64, 2, "b" * 64)
OLD, NEW = "0" * 63 + "1", "0" * 63 + "2"


def server(*words: str) -> subprocess.CompletedProcess[str]:
    code = "from server.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *words], capture_output=True, text=True, check=False
    )


def test_each_head_answers_one_question_and_the_newest_is_asked_for(tmp_path: Path) -> None:
    heads = LedgerHeads(tmp_path / "heads.jsonl")
    assert heads.newest("north") is None
    assert heads.accept("north", OLD, FIRST)
    assert heads.accept("north", OLD, FIRST)
    assert not heads.accept("north", OLD, SECOND)
    assert heads.accept("north", NEW, SECOND)
    assert LedgerHeads(tmp_path / "heads.jsonl").newest("north") == NEW
    assert heads.newest("south") is None


def test_a_new_ledger_is_accepted_by_a_command_and_old_heads_stay_refused(tmp_path: Path) -> None:
    home = Home(tmp_path)
    rehearsal_registry({"north": 100}).save(tmp_path)
    heads = LedgerHeads(home.ledger_heads)
    assert heads.accept("north", OLD, FIRST)
    done = server("new-ledger", "north", "--home", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert heads.newest("north") is None
    assert not heads.accept("north", OLD, SECOND)
    assert heads.accept("north", NEW, SECOND)
    assert heads.newest("north") == NEW
    stranger = server("new-ledger", "elsewhere", "--home", str(tmp_path))
    assert stranger.returncode == ExitCode.KEY_UNREGISTERED
