from __future__ import annotations

from pathlib import Path

from semc.datasets.duplicates import identical_files, merge_identical
from semc.datasets.sample import SourceRow


def rows_of(tmp_path: Path, cells: list[tuple[bytes, int, str]]) -> list[SourceRow]:
    rows = []
    for number, (content, label, group) in enumerate(cells):
        path = tmp_path / f"{number}.png"
        path.write_bytes(content)
        rows.append(SourceRow(number + 2, path, label, group, None, "", "", "", 0))
    return rows


def test_a_planted_copy_merges_two_patients_for_good(tmp_path: Path) -> None:
    """a-b share a file, b-c another: all three become one group."""
    cells = [
        (b"11", 0, "c"),
        (b"22", 0, "b"),
        (b"22", 0, "c"),
        (b"33", 0, "b"),
        (b"33", 0, "a"),
        (b"44", 0, "d"),
    ]
    rows = rows_of(tmp_path, cells)
    merged = merge_identical(rows, identical_files(rows))
    assert [row.group for row in merged.rows] == ["a", "a", "a", "a", "a", "d"]
    assert (merged.num_merged_groups, merged.num_quarantined) == (2, 0)


def test_a_copy_under_another_label_is_quarantined(tmp_path: Path) -> None:
    cells = [(b"11", 0, "a"), (b"11", 1, "b"), (b"22", 0, "a"), (b"33", 1, "b")]
    rows = rows_of(tmp_path, cells)
    merged = merge_identical(rows, identical_files(rows))
    assert [row.index for row in merged.rows] == [4, 5]
    assert [row.group for row in merged.rows] == ["a", "b"], "a contradiction does not merge patients"
    assert merged.num_quarantined == 2


def test_equal_size_is_not_equal_content(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [(b"ab", 0, "a"), (b"ba", 0, "b"), (b"ab", 0, "c")])
    assert [[row.index for row in same] for same in identical_files(rows)] == [[2, 4]]
