"""The thin bundle that starts a run: settings and the study's YAML, no code.

Flower builds it into an archive that every site receives. Server and client code are installed packages; a
Python file in the bundle would shadow them, so the folder is written empty and fresh, and sites refuse a
bundle with code.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from semc.config import StudyConfig

RUN_KEY: Final = "run"
"""Setting of the bundle that names the run's folder in the coordinator's home; a name, never a path."""
STUDY_FILE: Final = "study.yaml"

_PYPROJECT: Final = """\
[project]
name = "{name}"
version = "0.1.0"
license = {{ text = "Apache-2.0" }}
dependencies = ["flwr>=1.41.0,<2.0"]

[tool.flwr.app]
publisher = "semc"
fab-include = ["{study_file}"]

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"

[tool.flwr.app.config]
study = "{study_file}"
{run_key} = "{run}"
"""


def write_bundle(folder: Path, study: StudyConfig, run: str) -> None:
    """Write the bundle of a run into an empty folder.

    Args:
        folder: Made anew; its name becomes the bundle's (letters, digits, hyphens).
        study: The resolved study.
        run: Name of the run's folder in the coordinator's home.
    """
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    settings = _PYPROJECT.format(name=folder.name, study_file=STUDY_FILE, run_key=RUN_KEY, run=run)
    (folder / "pyproject.toml").write_text(settings, encoding="utf-8")
    (folder / STUDY_FILE).write_text(study.to_yaml(), encoding="utf-8")
