from __future__ import annotations

import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semc.config.site import SplitConfig
from semc.datasets.sample import ManifestRow, SourceRow, Split
from semc.datasets.splits import split_rows
from semc.exit_codes import ExitCode, SemcError

SPLIT = SplitConfig(validation_fraction=0.15, test_fraction=0.2, seed=3)


def row(index: int, label: int, group: str, split: Split | None = None) -> SourceRow:
    return SourceRow(index, Path(f"{index}.png"), label, group, split, "", "", "", 0)


def cohort(labels_of_group: list[list[int]], split: Split | None = None) -> list[SourceRow]:
    rows: list[SourceRow] = []
    for group, labels in enumerate(labels_of_group):
        rows += [
            row(2 + len(rows) + number, label, f"g{group}", split) for number, label in enumerate(labels)
        ]
    return rows


def splits_of_groups(rows: list[ManifestRow]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for one in rows:
        found[one.group].add(one.split)
    return found


GROUPS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=40)


@given(GROUPS, st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_groups_stay_whole_and_train_keeps_every_class(groups: list[list[int]], seed: int) -> None:
    rows = split_rows(cohort(groups), SPLIT.model_copy(update={"seed": seed}), 4)
    assert len(rows) == sum(map(len, groups))
    assert all(len(found) == 1 for found in splits_of_groups(rows).values())
    labels = {one.label for one in rows}
    assert {one.label for one in rows if one.split == "train"} == labels


@given(st.integers(0, 20))
@settings(max_examples=15, deadline=None)
def test_fractions_and_strata_are_met_where_there_are_enough_groups(seed: int) -> None:
    groups = [[label] * 3 for label in (0,) * 40 + (1,) * 20 + (2,) * 5]
    rows = split_rows(cohort(groups), SPLIT.model_copy(update={"seed": seed}), 3)
    counts = Counter((one.split, one.label) for one in rows)
    assert {label for split, label in counts if split == "test"} == {0, 1, 2}
    assert {label for split, label in counts if split == "validation"} == {0, 1, 2}
    assert counts["test", 0] == 24
    assert counts["validation", 0] == 18
    assert counts["test", 2] == 3


def test_the_split_depends_on_the_seed_and_not_on_row_order() -> None:
    rows = cohort([[number % 3] * 4 for number in range(30)])
    shuffled = random.Random(1).sample(rows, len(rows))
    first = {one.index: one.split for one in split_rows(rows, SPLIT, 3)}
    assert first == {one.index: one.split for one in split_rows(shuffled, SPLIT, 3)}
    other = SPLIT.model_copy(update={"seed": 4})
    assert first != {one.index: one.split for one in split_rows(rows, other, 3)}


def test_an_official_split_is_kept_and_validation_comes_from_train() -> None:
    rows = cohort([[0, 1]] * 20, "train") + [row(900 + n, n % 2, f"t{n}", "test") for n in range(6)]
    done = split_rows(rows, SPLIT, 2)
    assert {one.group for one in done if one.split == "test"} == {f"t{n}" for n in range(6)}
    assert Counter(one.split for one in done)["validation"] == 6


def test_a_group_in_two_splits_is_a_leak() -> None:
    with pytest.raises(SemcError, match="Rows 2 and 3") as caught:
        split_rows([row(2, 0, "g", "train"), row(3, 0, "g", "test")], SPLIT, 1)
    assert caught.value.code is ExitCode.SPLIT_LEAK


def test_a_half_filled_split_column_is_refused() -> None:
    with pytest.raises(SemcError, match="Row 3") as caught:
        split_rows([row(2, 0, "g", "train"), row(3, 0, "h")], SPLIT, 1)
    assert caught.value.code is ExitCode.MANIFEST_INVALID


def test_a_zero_fraction_cuts_nothing() -> None:
    none = SplitConfig(validation_fraction=0, test_fraction=0)
    assert {one.split for one in split_rows(cohort([[0]] * 9), none, 1)} == {"train"}
