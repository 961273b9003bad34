"""A file is whole or absent: what is on disk at every step, whatever fails, and who may read it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from semc.whole_file import write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_older_file_is_replaced(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"old")
    write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_content_then_name_then_folder_reach_the_disk_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, move = os.fsync, os.replace

    def noted_sync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "content"
        steps.append(kind)
        if kind == "content":
            assert os.fstat(descriptor).st_size == len(b"text"), "synced before it was written"
        sync(descriptor)

    def noted_move(source: Path, target: Path) -> None:
        steps.append("name")
        move(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_move)
    write_whole(tmp_path / "file", b"text")
    assert steps == ["content", "name", "folder"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_where_the_disk_fails_the_older_file_is_intact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    write_whole(tmp_path / "file", b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"], "nothing half-written is left behind"


def test_a_private_file_is_private_from_its_first_byte_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    sync = os.fsync

    def looking(descriptor: int) -> None:
        modes.extend(stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir())
        sync(descriptor)

    before = os.umask(0o022)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", looking)
            write_whole(tmp_path / "key", b"secret", mode=0o600)
        assert modes == [0o600, 0o600], "while it is written, and under its name"
        write_whole(tmp_path / "list", b"for all")
        assert stat.S_IMODE((tmp_path / "list").stat().st_mode) == 0o644, "the control: it is the argument"
    finally:
        os.umask(before)


def test_what_an_interrupted_writing_left_lends_neither_its_mode_nor_its_target(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"untouched")
    elsewhere.chmod(0o644)
    (tmp_path / ".key.part").symlink_to(elsewhere)
    write_whole(tmp_path / "key", b"secret", mode=0o600)
    assert elsewhere.read_bytes() == b"untouched"
    assert not (tmp_path / "key").is_symlink()
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
