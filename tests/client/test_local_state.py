"""A site's state: per study and round, whole, its own, and never from the future."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from client.local_state import LocalState, SiteState, data_trained_last
from semc.checkpoint import load_state
from semc.exit_codes import ExitCode, SemcError

DIGEST = "ab" * 32
CHECKPOINTS = 3


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
    local = LocalState(tmp_path, "north", DIGEST, CHECKPOINTS)
    assert local.newest(9) is None
    local.save(1, state(0.1), "00")
    found = LocalState(tmp_path, "north", DIGEST, CHECKPOINTS).newest(1)
    assert found is not None
    for part in ("network", "objective", "optimiser"):
        saved, loaded = getattr(state(0.1), part), getattr(found, part)
        assert saved.keys() == loaded.keys()
        assert all(torch.equal(loaded[name], saved[name]) for name in saved)
        assert all(loaded[name].dtype == saved[name].dtype for name in saved)


def test_a_round_starts_from_the_newest_state_before_it(tmp_path: Path) -> None:
    local = LocalState(tmp_path, "north", DIGEST, CHECKPOINTS)
    for number in (1, 2, 4):
        local.save(number, state(number), "00")
    assert [value(local.newest(number)) for number in (1, 2, 3, 4, 9)] == [1, 2, 2, 4, 4]
    assert local.newest(0) is None


@pytest.mark.parametrize("checkpoints", [2, 3, 5])
def test_one_state_more_than_checkpoints_is_kept_and_later_ones_forgotten(
    tmp_path: Path, checkpoints: int
) -> None:
    local = LocalState(tmp_path, "north", DIGEST, checkpoints)
    for number in range(1, 10):
        local.save(number, state(number), "00")
    folder = tmp_path / DIGEST[:16]
    kept = [f"round-{number:05d}" for number in range(9 - checkpoints, 10)]
    assert sorted(path.name for path in folder.iterdir()) == kept
    local.save(8, state(80), "00")
    assert value(local.newest(9)) == 80, "round 9 was trained from a round 8 that is gone"
    local.save(1, state(10), "00")
    assert sorted(path.name for path in folder.iterdir()) == ["round-00001"], "the study started anew"


def test_a_coordinator_that_falls_back_to_its_oldest_checkpoint_finds_the_state_of_it(tmp_path: Path) -> None:
    """It stands before round 9 with checkpoints 8, 7 and 6, while this site has answered 9 already."""
    local = LocalState(tmp_path, "north", DIGEST, CHECKPOINTS)
    for number in range(1, 10):
        local.save(number, state(number), "00")
    assert [value(local.newest(checkpoint)) for checkpoint in (8, 7, 6)] == [8, 7, 6]


@pytest.mark.parametrize("number", [1, 4])
def test_a_site_whose_earlier_states_are_gone_says_so(tmp_path: Path, number: int) -> None:
    local = LocalState(tmp_path, "north", DIGEST, CHECKPOINTS)
    for number_of_state in range(1, 10):
        local.save(number_of_state, state(number_of_state), "00")
    with pytest.raises(SemcError, match="oldest state kept here is that after round 6") as caught:
        local.newest(number)
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID
    assert local.newest(0) is None, "the study started anew: round 1 needs no state"


def test_a_site_that_joined_later_starts_fresh_and_does_so_again(tmp_path: Path) -> None:
    local = LocalState(tmp_path, "north", DIGEST, CHECKPOINTS)
    assert local.newest(2) is None
    for number in (3, 4, 6):
        local.save(number, state(number), "00")
    assert local.newest(2) is None, "round 3 comes twice: it began from nothing the first time too"
    assert local.newest(1) is None, "the study went back to before it joined"
    local.save(3, state(30), "00")
    local.save(4, state(40), "00")
    assert value(local.newest(5)) == 40
    for number in range(5, 9):
        local.save(number, state(number), "00")
    assert local.newest(2) is None
    with pytest.raises(SemcError):
        local.newest(3)


def test_a_site_that_was_away_goes_on_from_its_newest_state_before(tmp_path: Path) -> None:
    local = LocalState(tmp_path, "north", DIGEST, CHECKPOINTS)
    for number in (1, 2, 7, 8, 9):
        local.save(number, state(number), "00")
    assert [value(local.newest(number)) for number in (6, 5, 2)] == [2, 2, 2]
    with pytest.raises(SemcError):
        local.newest(1)


def test_the_data_trained_last_are_known_without_reading_tensors(tmp_path: Path) -> None:
    assert data_trained_last(tmp_path) is None
    saved = SiteState({"x": torch.zeros(1)}, {}, {}, data="da" * 32)
    LocalState(tmp_path, "north", DIGEST, CHECKPOINTS).save(1, saved, "00")
    (tensors,) = tmp_path.glob("*/*/*.safetensors")
    tensors.write_bytes(b"")
    with pytest.raises(SemcError):
        load_state(tensors.parent)
    assert data_trained_last(tmp_path) == "da" * 32


def test_another_study_has_other_states(tmp_path: Path) -> None:
    LocalState(tmp_path, "north", DIGEST, CHECKPOINTS).save(1, state(1), "00")
    assert LocalState(tmp_path, "north", "cd" * 32, CHECKPOINTS).newest(5) is None


def test_another_sites_state_is_refused(tmp_path: Path) -> None:
    LocalState(tmp_path, "north", DIGEST, CHECKPOINTS).save(1, state(1), "00")
    with pytest.raises(SemcError) as caught:
        LocalState(tmp_path, "south", DIGEST, CHECKPOINTS).newest(1)
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID


def test_only_one_process_trains(tmp_path: Path) -> None:
    first, second = (
        LocalState(tmp_path, "north", DIGEST, CHECKPOINTS),
        LocalState(tmp_path, "north", "cd" * 32, CHECKPOINTS),
    )
    with first.lock(), pytest.raises(SemcError) as caught, second.lock():
        pass
    assert caught.value.code is ExitCode.ALREADY_RUNNING
    with second.lock():
        pass


def test_a_state_directory_that_cannot_be_made_is_a_disk_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with (
        pytest.raises(SemcError) as caught,
        LocalState(blocked / "state", "north", DIGEST, CHECKPOINTS).lock(),
    ):
        pass
    assert caught.value.code is ExitCode.DISK
