"""Random manifests: no patient or stream on both sides of a split, and none without a key unless allowed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from semc.config import SiteDataConfig
from semc.config.site import SplitConfig
from semc.datasets.duplicates import identical_files, merge_identical
from semc.datasets.manifest import rows_of_table
from semc.datasets.ontology import Ontology
from semc.datasets.splits import split_rows
from semc.exit_codes import ExitCode, SemcError

CLASSES = ("a", "b", "c")
NUM_FILES = 60
QUICK = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files 0.png to 59.png; those whose numbers agree modulo 50 are identical."""
    root = tmp_path_factory.mktemp("files")
    for number in range(NUM_FILES):
        (root / f"{number}.png").write_bytes(b"picture %d" % (number % 50))
    return root


rows = st.lists(
    st.tuples(st.sampled_from(CLASSES), st.integers(0, 15), st.sampled_from(["", "north", "south"])),
    min_size=1,
    max_size=NUM_FILES,
)


def table_of(listed: list[tuple[str, int, str]]) -> pd.DataFrame:
    records = [
        {"file": f"{place}.png", "label": label, "group": str(group), "site": site}
        for place, (label, group, site) in enumerate(listed)
    ]
    return pd.DataFrame(records, index=pd.RangeIndex(2, len(records) + 2))


@QUICK
@given(listed=rows, fraction=st.floats(0, 0.6), seed=st.integers(0, 5), order=st.randoms())
def test_no_patient_and_no_copy_on_both_sides(
    folder: Path, listed: list[tuple[str, int, str]], fraction: float, seed: int, order: object
) -> None:
    source = rows_of_table(table_of(listed), SiteDataConfig(root=folder), Ontology(CLASSES))
    unique = merge_identical(source, identical_files(source))
    config = SplitConfig(validation_fraction=fraction / 2, test_fraction=fraction, seed=seed)
    placed = split_rows(unique.rows, config, len(CLASSES))
    split_of_patient: dict[tuple[str, str], set[str]] = {}
    split_of_picture: dict[bytes, set[str]] = {}
    for row in placed:
        _, group, site = listed[row.index - 2]
        split_of_patient.setdefault((site, str(group)), set()).add(row.split)
        split_of_picture.setdefault(row.path.read_bytes(), set()).add(row.split)
    assert all(len(splits) == 1 for splits in split_of_patient.values())
    assert all(len(splits) == 1 for splits in split_of_picture.values())
    assert len(placed) + unique.num_quarantined == len(listed), "nothing is lost but the quarantined"
    if unique.rows:
        trained = Counter(row.label for row in placed if row.split == "train")
        assert set(trained) == {row.label for row in unique.rows}, "every class stays in train"
    shuffled = list(unique.rows)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    again = {row.index: row.split for row in split_rows(shuffled, config, len(CLASSES))}
    assert again == {row.index: row.split for row in placed}


@QUICK
@given(
    listed=rows,
    official=st.lists(st.sampled_from(["train", "val", "test"]), min_size=NUM_FILES, max_size=NUM_FILES),
)
def test_an_official_split_is_kept_or_refused(
    folder: Path, listed: list[tuple[str, int, str]], official: list[str]
) -> None:
    table = table_of(listed).assign(split=official[: len(listed)])
    source = rows_of_table(table, SiteDataConfig(root=folder), Ontology(CLASSES))
    splits: dict[str, set[str | None]] = {}
    for row in source:
        splits.setdefault(row.group, set()).add(row.split)
    no_cut = SplitConfig(validation_fraction=0, test_fraction=0)
    if any(len(found) > 1 for found in splits.values()):
        with pytest.raises(SemcError) as caught:
            split_rows(source, no_cut, len(CLASSES))
        assert caught.value.code is ExitCode.SPLIT_LEAK
    else:
        placed = split_rows(source, no_cut, len(CLASSES))
        assert [row.split for row in placed] == [row.split for row in source]


@QUICK
@given(listed=rows, holes=st.sets(st.integers(0, NUM_FILES - 1), min_size=1))
def test_a_row_without_a_key_is_refused_unless_allowed(
    folder: Path, listed: list[tuple[str, int, str]], holes: set[int]
) -> None:
    table = table_of(listed)
    missing = sorted(hole for hole in holes if hole < len(listed))
    table.loc[[hole + 2 for hole in missing], "group"] = ""
    allowed = SiteDataConfig(root=folder, allow_ungrouped=True)
    assert len(rows_of_table(table, allowed, Ontology(CLASSES))) == len(listed)
    if missing:
        with pytest.raises(SemcError, match=f"^Row {missing[0] + 2} has no group") as caught:
            rows_of_table(table, SiteDataConfig(root=folder), Ontology(CLASSES))
        assert caught.value.code is ExitCode.SPLIT_LEAK
