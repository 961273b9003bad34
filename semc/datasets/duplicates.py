"""Identical images under two patients or two labels: merge the patients, quarantine the contradiction.

Open collections hold copies of one image under different patient numbers; a split by patient would still
leak. A site compares files byte by byte (files of equal size are hashed, none is decoded), because it does so at
every start; where hospitals are made of a source, pixels are compared (`identical_pictures.py`). Near duplicates are
never merged, because images of two patients can be very alike.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from semc.datasets.sample import SourceRow


@dataclass(frozen=True)
class Deduplicated:
    """Rows after merging and quarantine.

    Attributes:
        rows: The rows kept, merged groups under one name.
        num_merged_groups: Groups that lost their own name.
        num_quarantined: Rows dropped.
    """

    rows: tuple[SourceRow, ...]
    num_merged_groups: int
    num_quarantined: int


def merge_identical(
    rows: Sequence[SourceRow], sets_of_copies: Sequence[Sequence[SourceRow]], *, ungrouped: bool = False
) -> Deduplicated:
    """Merge groups that share an identical image and drop identical images under two labels.

    Args:
        rows: Rows, each with a non-empty group.
        sets_of_copies: Sets of identical rows among them, of :func:`identical_files` or `identical_pictures`.
        ungrouped: Groups are single images, not patients; a copy in another split is then dropped from
            training instead of contradicting the whole group.
    """
    quarantined: set[int] = set()
    parents = {row.group: row.group for row in rows}
    for copies in sets_of_copies:
        if len({row.label for row in copies}) > 1:
            quarantined.update(row.index for row in copies)
        elif ungrouped and len({row.split for row in copies}) > 1:
            held_out = "test" if any(row.split == "test" for row in copies) else "validation"
            quarantined.update(row.index for row in copies if row.split != held_out)
        else:
            for row in copies[1:]:
                _join(parents, copies[0].group, row.group)
    kept = [row for row in rows if row.index not in quarantined]
    renamed = tuple(replace(row, group=_root(parents, row.group)) for row in kept)
    merged = sum(_root(parents, group) != group for group in parents)
    return Deduplicated(renamed, merged, len(quarantined))


def identical_files(rows: Sequence[SourceRow]) -> list[list[SourceRow]]:
    """Return the sets of two or more rows whose files are byte-identical, in row order."""
    by_size: dict[int, list[SourceRow]] = defaultdict(list)
    for row in rows:
        by_size[row.path.stat().st_size].append(row)
    by_content: dict[str, list[SourceRow]] = defaultdict(list)
    for alike in by_size.values():
        if len(alike) > 1:
            for row in alike:
                by_content[hashlib.sha256(row.path.read_bytes()).hexdigest()].append(row)
    return sorted((same for same in by_content.values() if len(same) > 1), key=lambda same: same[0].index)


def _root(parents: dict[str, str], group: str) -> str:
    while parents[group] != group:
        group = parents[group]
    return group


def _join(parents: dict[str, str], one: str, other: str) -> None:
    """Unite two groups under the smaller name, so that the result does not depend on row order."""
    first, second = sorted((_root(parents, one), _root(parents, other)))
    parents[second] = first
