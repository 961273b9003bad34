"""One phantom hospital for all tests of this folder; tests that write get a state directory of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from semc.config import SiteConfig, load_site
from tests.client.small_study import write_site


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the site file of a hospital nobody writes to."""
    return write_site(tmp_path_factory.mktemp("hospital"))


@pytest.fixture
def site(hospital: Path, tmp_path: Path) -> SiteConfig:
    """Return the hospital with an empty state directory."""
    return load_site(hospital).model_copy(update={"state_directory": tmp_path / "state"})
