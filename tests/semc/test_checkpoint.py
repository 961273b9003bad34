"""Saved states: whole or absent, whatever interrupts the saving."""

import json
import multiprocessing
import os
import resource
from pathlib import Path

import pytest
import torch

from semc import checkpoint
from semc.checkpoint import (
    STATE_FILE,
    latest,
    load_metadata,
    load_state,
    prune,
    save_state,
    saved_states,
)
from semc.exit_codes import ExitCode, SemcError

TENSORS = {
    "weight": torch.arange(6.0).reshape(2, 3).t(),
    "ids": torch.tensor([5, -1]),
    "valid": torch.tensor([True, False]),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 4),
}


def _tensor_file(folder: Path) -> Path:
    (found,) = folder.glob("*.safetensors")
    return found


def _refused(folder: Path) -> bool:
    with pytest.raises(SemcError) as caught:
        load_state(folder)
    assert str(folder) not in str(caught.value)
    return caught.value.code is ExitCode.CHECKPOINT_INVALID


def test_round_trip_of_every_dtype(tmp_path: Path):
    save_state(tmp_path / "round-1", TENSORS, {"round": 1, "digest": "ab", "nested": {"x": [1.5, None]}})
    tensors, metadata = load_state(tmp_path / "round-1")
    assert metadata == {"round": 1, "digest": "ab", "nested": {"x": [1.5, None]}}
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_no_tensors_is_a_state_too(tmp_path: Path):
    save_state(tmp_path / "s", {}, {"round": 0})
    assert load_state(tmp_path / "s") == ({}, {"round": 0})


def test_saving_again_replaces_and_leaves_one_tensor_file(tmp_path: Path):
    for value in (1.0, 2.0, 2.0):
        save_state(tmp_path, {"x": torch.tensor([value])}, {"value": value})
    assert load_state(tmp_path)[0]["x"].item() == 2
    assert len(list(tmp_path.iterdir())) == 2


class _Killed(BaseException):
    """Stands for the process dying: no handler of ours may catch it."""


@pytest.mark.parametrize("calls_before_death", range(7))
def test_death_at_any_write_leaves_the_old_or_the_new_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls_before_death: int
):
    save_state(tmp_path, {"x": torch.tensor([1.0])}, {"value": 1})
    done = 0

    def counted(real):  # type: ignore[no-untyped-def]
        def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal done
            if done == calls_before_death:
                raise _Killed
            done += 1
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(checkpoint, "save_file", counted(checkpoint.save_file))
    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(os, "replace", counted(os.replace))
    with pytest.raises(_Killed):
        save_state(tmp_path, {"x": torch.tensor([2.0])}, {"value": 2})
    monkeypatch.undo()
    tensors, metadata = load_state(tmp_path)
    assert tensors["x"].item() == metadata["value"]
    # save_file, fsync, replace, fsync, then the replace that saves.
    assert metadata["value"] == (2 if calls_before_death >= 5 else 1)
    save_state(tmp_path, {"x": torch.tensor([3.0])}, {"value": 3})
    assert load_state(tmp_path)[1]["value"] == 3
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_damaged_tensors_are_refused(tmp_path: Path, damage: str):
    save_state(tmp_path, TENSORS, {})
    file = _tensor_file(tmp_path)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flipped" else content[:-4])
    assert _refused(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"round": 9}},
        {"sha256": "0" * 64},
        {"format": 2},
        {"tensor_file": "../../etc/passwd"},
        {"digest": ""},
    ],
)
def test_a_changed_description_is_refused(tmp_path: Path, change: dict[str, object]):
    save_state(tmp_path, TENSORS, {"round": 1})
    content = json.loads((tmp_path / STATE_FILE).read_text())
    (tmp_path / STATE_FILE).write_text(json.dumps(content | change))
    assert _refused(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"digest": "x"}'])
def test_a_description_that_is_none_is_refused(tmp_path: Path, text: str):
    (tmp_path / STATE_FILE).write_text(text)
    assert _refused(tmp_path)


def test_a_missing_state_is_refused(tmp_path: Path):
    assert _refused(tmp_path / "round-3")


def test_states_are_ordered_by_number_and_incomplete_ones_do_not_count(tmp_path: Path):
    assert latest(tmp_path / "absent", "round-") is None
    for number in (9, 10, 2):
        save_state(tmp_path / f"round-{number:04}", {}, {"round": number})
    (tmp_path / "round-0011").mkdir()
    (tmp_path / "round-x").mkdir()
    save_state(tmp_path / "other-0099", {}, {})
    assert [path.name for path in saved_states(tmp_path, "round-")] == [
        "round-0002",
        "round-0009",
        "round-0010",
    ]
    assert latest(tmp_path, "round-") == tmp_path / "round-0010"


def test_prune_keeps_the_newest(tmp_path: Path):
    for number in range(5):
        save_state(tmp_path / f"round-{number}", TENSORS, {})
    prune(tmp_path, "round-", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round-3", "round-4"]
    prune(tmp_path, "round-", 9)
    assert len(saved_states(tmp_path, "round-")) == 2


def _save_on_a_full_disk(folder: Path, outcome) -> None:  # type: ignore[no-untyped-def]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        save_state(folder, {"x": torch.ones(100_000)}, {"value": 2})
    except SemcError as error:
        outcome.put((int(error.code), str(error)))


def test_a_full_disk_is_told_and_keeps_the_older_state(tmp_path: Path):
    """A limit on file sizes makes the kernel refuse the write in the middle, as a full disk does."""
    save_state(tmp_path, {"x": torch.ones(1)}, {"value": 1})
    context = multiprocessing.get_context("fork")
    outcome = context.Queue()
    process = context.Process(target=_save_on_a_full_disk, args=(tmp_path, outcome))
    process.start()
    code, text = outcome.get(timeout=60)
    process.join()
    assert code == ExitCode.DISK
    assert str(tmp_path) not in text
    assert load_state(tmp_path)[1] == {"value": 1}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_path_that_cannot_be_a_folder_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SemcError) as caught:
        save_state(tmp_path / "file" / "state", {}, {})
    assert caught.value.code is ExitCode.DISK


def test_metadata_must_be_plain_json(tmp_path: Path):
    with pytest.raises((TypeError, ValueError)):
        save_state(tmp_path, {}, {"loss": float("nan")})
    with pytest.raises(SemcError):
        load_state(tmp_path)


def test_metadata_alone_are_read_without_the_tensors(tmp_path: Path):
    save_state(tmp_path, TENSORS, {"round": 1})
    _tensor_file(tmp_path).write_bytes(b"")
    assert _refused(tmp_path), "the control: the tensors are gone"
    assert load_metadata(tmp_path) == {"round": 1}
    content = json.loads((tmp_path / STATE_FILE).read_text())
    (tmp_path / STATE_FILE).write_text(json.dumps(content | {"metadata": {"round": 9}}))
    with pytest.raises(SemcError) as caught:
        load_metadata(tmp_path)
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID
