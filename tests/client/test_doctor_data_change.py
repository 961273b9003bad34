"""The preflight tells of changed images before a study's next message does, reads little and writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.accepted_data import accept_data
from client.doctor import examine
from client.doctor.data import data_rows
from client.doctor.data_change import data_change_row
from client.site import WarmSite
from semc.config import SiteConfig, load_site, parse_study
from semc.models import build_model
from semc.parameter_exchange import split_parameters
from tests.client.opened_files import opened_in
from tests.client.private_site import PRIVATE_TEXT, private_site
from tests.client.small_study import write_site
from tests.client.test_data_changed import STUDY, add, first_round, images, remove

NAME = "images since last round"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the site file of a hospital that has trained a round."""
    written = write_site(tmp_path / "hospital")
    first_round(WarmSite(written))
    return written


def found(site: SiteConfig) -> tuple[str, str, str]:
    row = data_change_row(site, None)
    assert row.name == NAME
    return row.state, row.found, row.fix


def files(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()
    }


def test_unchanged_images_are_not_read(file: Path) -> None:
    site = load_site(file)
    with opened_in(site.data.root) as seen:
        assert found(site) == ("passed", "unchanged", "")
    assert set(seen) <= {"manifest.csv"}


def test_a_change_is_a_warning_with_its_fix_and_only_the_changed_file_is_read(file: Path) -> None:
    site = load_site(file)
    add(file)
    with opened_in(site.data.root) as seen:
        state, told, fix = found(site)
    assert state == "warning"
    assert "1 added, 0 removed, 0 changed" in told
    assert "accept-data --site north" in fix
    assert "new.png" not in told + fix
    assert set(seen) == {"manifest.csv", "new.png"}
    accept_data(site)
    assert found(site) == ("passed", "changed, and accepted", "")


def test_the_check_writes_nothing(file: Path) -> None:
    """What it noted would be taken for data that were seen by a round."""
    site = load_site(file)
    remove(file)
    before = files(site.state_directory)
    assert found(site)[0] == "warning"
    assert files(site.state_directory) == before
    WarmSite(file).trainer(STUDY)
    assert files(site.state_directory) != before, "the control: a round's own look does"


def test_the_whole_preflight_has_the_row(file: Path) -> None:
    add(file)
    rows = {row.name: row.state for row in examine(file).rows}
    assert rows[NAME] == "warning"


def test_a_study_is_asked_about_its_own_last_round(file: Path) -> None:
    site = load_site(file)
    add(file)
    assert data_change_row(site, STUDY).state == "warning"
    other = STUDY.model_copy(update={"seed": 9})
    assert data_change_row(site, other).state == "skipped", "a new study begins with the data there are"


def test_a_site_of_private_studies_alone_is_not_looked_at(tmp_path: Path) -> None:
    study = parse_study(PRIVATE_TEXT)
    site = private_site(tmp_path)
    shared = split_parameters(build_model(study), study.federation.bn).shared
    WarmSite(tmp_path / "site.yaml").trainer(study).run_round(1, shared)
    images(tmp_path / "site.yaml")[0].touch()
    with opened_in(site.data.root) as seen:
        assert found(site)[0] == "skipped"
    assert seen == []
    text = tmp_path / "study.yaml"
    text.write_text(PRIVATE_TEXT, encoding="utf-8")
    assert NAME not in {row.name for row in data_rows(site, str(text), every_image=False)}
