"""The site's own log of rounds: one line each, replaced by a round trained again, honest about damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.round_log import FILE_NAME, read_rounds, record_round
from semc.exit_codes import ExitCode, SemcError


def rounds(folder: Path) -> list[tuple[int, float]]:
    return [(entry.round, entry.loss) for entry in read_rounds(folder)]


def test_a_round_trained_again_replaces_its_line_and_the_later_ones(tmp_path: Path) -> None:
    assert read_rounds(tmp_path) == []
    for number in (1, 2, 4):
        record_round(tmp_path, number, float(number), {"moe": 0.25, "queue_drift_cosine": 0.5})
    assert rounds(tmp_path) == [(1, 1.0), (2, 2.0), (4, 4.0)]
    assert read_rounds(tmp_path)[2].terms == {"moe": 0.25, "queue_drift_cosine": 0.5}
    record_round(tmp_path, 2, 9.0, {})
    assert rounds(tmp_path) == [(1, 1.0), (2, 9.0)]
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_damage_ends_the_reading_and_is_written_over(tmp_path: Path) -> None:
    record_round(tmp_path, 1, 1.0, {})
    record_round(tmp_path, 2, 2.0, {})
    whole = (tmp_path / FILE_NAME).read_text()
    (tmp_path / FILE_NAME).write_text(whole[:-5])
    assert rounds(tmp_path) == [(1, 1.0)]
    record_round(tmp_path, 3, 3.0, {})
    assert rounds(tmp_path) == [(1, 1.0), (3, 3.0)]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(SemcError) as caught:
        record_round(tmp_path / "absent", 1, 1.0, {})
    assert caught.value.code is ExitCode.DISK
