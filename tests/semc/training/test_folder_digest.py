"""A folder's hash tells its names from its contents, and every change of either."""

from __future__ import annotations

from pathlib import Path

from semc.training.folder_digest import folder_digest


def test_names_contents_and_folders_count_and_the_order_of_writing_does_not(tmp_path: Path) -> None:
    def written(name: str, files: dict[str, bytes]) -> bytes:
        for file, content in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_bytes(content)
        return folder_digest(tmp_path / name)

    first = written("first", {"a.png": b"1", "in/b.png": b"2"})
    assert written("again", {"in/b.png": b"2", "a.png": b"1"}) == first
    others = [
        written("content", {"a.png": b"1", "in/b.png": b"3"}),
        written("swapped", {"a.png": b"2", "in/b.png": b"1"}),
        written("renamed", {"a.png": b"1", "in/c.png": b"2"}),
        written("moved", {"a.png": b"1", "b.png": b"2"}),
        written("fewer", {"a.png": b"1"}),
    ]
    assert len({first, *others}) == 6
