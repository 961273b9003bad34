from __future__ import annotations

from pathlib import Path

import pytest

from semc.config import SiteDataConfig
from semc.datasets import build_site_data
from semc.datasets.lp2025 import read_lp2025
from semc.datasets.ontology import Ontology
from semc.exit_codes import ExitCode, SemcError

from .tiny_site import CLASSES, DATA, write_image


@pytest.fixture
def site(tmp_path: Path) -> SiteDataConfig:
    """Folders in an order that is not the ontology's, one class missing in test, a hidden file."""
    seed = 0
    for split, names in (("train", ("femur", "abdomen", "head")), ("test", ("head", "femur"))):
        for name in names:
            for number in range(6):
                seed += 1
                write_image(tmp_path / split / name / f"{number}.png", seed)
    (tmp_path / "train" / "head" / ".DS_Store").write_bytes(b"x")
    return SiteDataConfig(root=tmp_path, format="lp2025", allow_ungrouped=True)


def test_labels_follow_names_not_folder_order(site: SiteDataConfig) -> None:
    rows = read_lp2025(site, Ontology(CLASSES))
    assert len(rows) == 30
    assert {(row.path.parent.name, row.label) for row in rows} == {("head", 0), ("abdomen", 1), ("femur", 2)}
    assert [row.index for row in rows] == list(range(1, 31))


def test_test_stays_and_validation_is_cut_from_train(site: SiteDataConfig) -> None:
    built = build_site_data(site, DATA, batch_size=4)
    assert built.ungrouped
    assert len(built.test) == 12
    assert len(built.train) + len(built.validation) == 18
    assert {row.path.parts[-3] for row in built.train + built.validation} == {"train"}
    assert len(built.validation) == 3


def test_ungrouped_data_needs_consent(site: SiteDataConfig) -> None:
    with pytest.raises(SemcError) as caught:
        read_lp2025(site.model_copy(update={"allow_ungrouped": False}), Ontology(CLASSES))
    assert caught.value.code is ExitCode.SPLIT_LEAK


def test_unknown_folder_and_missing_layout(site: SiteDataConfig, tmp_path: Path) -> None:
    with pytest.raises(SemcError) as caught:
        read_lp2025(site, Ontology(("head", "femur")))
    assert caught.value.code is ExitCode.LABEL_UNKNOWN
    with pytest.raises(SemcError) as caught:
        read_lp2025(site.model_copy(update={"root": tmp_path / "train"}), Ontology(CLASSES))
    assert caught.value.code is ExitCode.DATA_NOT_FOUND


def test_a_link_out_of_the_folder_is_refused(site: SiteDataConfig, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    (tmp_path / "train").rename(tmp_path / "moved")
    (inner / "train" / "head").mkdir(parents=True)
    (inner / "test").mkdir()
    (inner / "train" / "head" / "leak.png").symlink_to(tmp_path / "moved" / "head" / "0.png")
    with pytest.raises(SemcError) as caught:
        read_lp2025(site.model_copy(update={"root": inner}), Ontology(CLASSES))
    assert caught.value.code is ExitCode.MANIFEST_INVALID


def test_a_training_copy_of_a_test_image_is_left_out(site: SiteDataConfig, tmp_path: Path) -> None:
    copy = tmp_path / "train" / "head" / "copy.png"
    copy.write_bytes((tmp_path / "test" / "head" / "0.png").read_bytes())
    built = build_site_data(site, DATA, batch_size=4)
    assert built.num_quarantined == 1
    assert len(built.test) == 12
    assert all(row.path.name != "copy.png" for row in built.train + built.validation)
