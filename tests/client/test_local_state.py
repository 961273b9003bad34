"""A site's state: per study and round, whole, its own, and never from the future."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from client.local_state import KEPT_ROUNDS, LocalState, SiteState
from semc.exit_codes import ExitCode, SemcError

DIGEST = "ab" * 32


def state(value: float) -> SiteState:
    return SiteState(
        network={"bn.running_mean": torch.full((3,), value), "bn.num_batches_tracked": torch.tensor(7)},
        objective={"queue": torch.full((4, 2), value), "valid": torch.tensor([True, False])},
        optimiser={"momentum.conv/weight": torch.full((2,), value)},
    )


def value(found: SiteState | None) -> float:
    assert found is not None
    return found.network["bn.running_mean"][0].item()


def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    local = LocalState(tmp_path, "north", DIGEST)
    assert local.newest(9) is None
    local.save(1, state(0.1), "00")
    found = LocalState(tmp_path, "north", DIGEST).newest(1)
    assert found is not None
    for part in ("network", "objective", "optimiser"):
        saved, loaded = getattr(state(0.1), part), getattr(found, part)
        assert saved.keys() == loaded.keys()
        assert all(torch.equal(loaded[name], saved[name]) for name in saved)
        assert all(loaded[name].dtype == saved[name].dtype for name in saved)


def test_a_round_starts_from_the_newest_state_before_it(tmp_path: Path) -> None:
    local = LocalState(tmp_path, "north", DIGEST)
    for number in (1, 2, 4):
        local.save(number, state(number), "00")
    assert [value(local.newest(number)) for number in (1, 2, 3, 4, 9)] == [1, 2, 2, 4, 4]
    assert local.newest(0) is None


def test_three_states_are_kept_and_later_ones_forgotten(tmp_path: Path) -> None:
    local = LocalState(tmp_path, "north", DIGEST)
    for number in range(1, 8):
        local.save(number, state(number), "00")
    folder = tmp_path / DIGEST[:16]
    assert sorted(path.name for path in folder.iterdir()) == ["round-00005", "round-00006", "round-00007"]
    assert len(list(folder.iterdir())) == KEPT_ROUNDS
    local.save(6, state(60), "00")
    assert value(local.newest(9)) == 60, "round 7 was trained from a round 6 that is gone"
    local.save(1, state(10), "00")
    assert sorted(path.name for path in folder.iterdir()) == ["round-00001"], "the study started anew"


def test_another_study_has_other_states(tmp_path: Path) -> None:
    LocalState(tmp_path, "north", DIGEST).save(1, state(1), "00")
    assert LocalState(tmp_path, "north", "cd" * 32).newest(5) is None


def test_another_sites_state_is_refused(tmp_path: Path) -> None:
    LocalState(tmp_path, "north", DIGEST).save(1, state(1), "00")
    with pytest.raises(SemcError) as caught:
        LocalState(tmp_path, "south", DIGEST).newest(1)
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID


def test_only_one_process_trains(tmp_path: Path) -> None:
    first, second = LocalState(tmp_path, "north", DIGEST), LocalState(tmp_path, "north", "cd" * 32)
    with first.lock(), pytest.raises(SemcError) as caught, second.lock():
        pass
    assert caught.value.code is ExitCode.ALREADY_RUNNING
    with second.lock():
        pass


def test_a_state_directory_that_cannot_be_made_is_a_disk_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(SemcError) as caught, LocalState(blocked / "state", "north", DIGEST).lock():
        pass
    assert caught.value.code is ExitCode.DISK
