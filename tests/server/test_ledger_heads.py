"""What a coordinator remembers of the sites' ledgers, and how a hospital's new ledger begins on purpose."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from semc.exit_codes import ExitCode, SemcError
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


def test_a_line_that_a_power_cut_tore_is_passed_over_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "heads.jsonl"
    heads = LedgerHeads(file)
    assert heads.accept("north", OLD, FIRST)
    whole = file.read_bytes()
    for torn in (b'{"site": "north", "head": "\xc3', whole[:-1]):
        file.write_bytes(whole + torn)
        assert heads.newest("north") == OLD
        assert heads.accept("north", OLD, FIRST)
        assert file.read_bytes() == whole
        file.write_bytes(whole + torn)
        assert heads.accept("north", NEW, SECOND)
        assert heads.newest("north") == NEW
        assert len(file.read_bytes().splitlines()) == 2
    file.write_bytes(b"torn\n" + whole)
    for act in (lambda: heads.newest("north"), lambda: heads.accept("north", OLD, FIRST)):
        with pytest.raises(SemcError) as damaged:
            act()
        assert damaged.value.code is ExitCode.CHECKPOINT_INVALID, "a whole line that is wrong is no torn one"


@pytest.mark.parametrize("failing", ["fsync", "write"])
def test_a_full_disk_leaves_no_half_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    file = tmp_path / "heads.jsonl"
    heads = LedgerHeads(file)
    assert heads.accept("north", OLD, FIRST)
    whole = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if failing == "fsync":
            patch.setattr("server.ledger_heads.os.fsync", full)
        else:  # room for half a line: the limit is the process's, as a full disk is the machine's
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, limit[1]))
        try:
            with pytest.raises(SemcError) as refusal:
                heads.accept("north", NEW, SECOND)
        finally:
            if failing == "write":
                resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert refusal.value.code is ExitCode.DISK
    assert file.read_bytes() == whole
    assert heads.accept("north", NEW, SECOND)


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
