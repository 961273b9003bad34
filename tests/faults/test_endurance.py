"""Fifty studies in a row on one coordinator: memory, handles and disk do not grow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import psutil
import pytest

from tests.faults.conftest import Record
from tests.faults.fault_row import FaultRow
from tests.faults.federation import Federation, running_federation, small_study, wait_for
from tests.faults.footprint import Trend, footprint_of, megabytes_in

STUDIES = 50
MOST_MB = 15.0
"""Growth of a process's own memory over 35 studies that counts as none: less than half a MB a study."""
MOST_HANDLES = 2
MOST_DISK_MB = 10.0
"""Growth of the home beside the run folders: the database's log and the service logs come and go."""

pytestmark = [pytest.mark.faults, pytest.mark.timeout(5400)]

PROCESSES = {
    "semc-server up": ("up",),
    "superlink": ("server.superlink", "superlink"),
    "executor": ("server.superlink", "executor"),
}
SITE_PROCESSES = {"supernode": ("client.supernode",), "worker": ("client.worker",)}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with running_federation(tmp_path_factory.mktemp("endurance"), ("north", "south")) as running:
        yield running


def found(federation: Federation, words: tuple[str, ...], site: str = "") -> psutil.Process:
    wait_for(lambda: federation.find(words, site) is not None, f"{words} to run")
    process = federation.find(words, site)
    assert process is not None
    return process


def test_fifty_studies_in_a_row(fresh: Federation, record: Record) -> None:
    figures: dict[str, list[float]] = defaultdict(list)
    for seed in range(STUDIES):
        study = small_study(fresh.names, seed=seed, training__local_steps=2, federation__rounds=2)
        run = fresh.start(study)
        run.wait()
        run.assert_whole()
        for name, words in (PROCESSES | SITE_PROCESSES).items():
            held = footprint_of(found(fresh, words, "north" if name in SITE_PROCESSES else ""))
            figures[f"{name} MB"].append(held.private_mb)
            figures[f"{name} handles"].append(held.handles)
        home = fresh.home.root
        figures["home beside runs MB"].append(megabytes_in(home, without=("runs",)))
        figures["run folder MB"].append(megabytes_in(run.folder.root))
        figures["seconds"].append(run.seconds)
    trends = {name: Trend.of(values) for name, values in figures.items()}
    for name, trend in trends.items():
        record(
            FaultRow(
                f"{STUDIES} studies in a row",
                name,
                "complete",
                figures={"studies 6 to 15": trend.early, "the last 10": trend.late},
            )
        )
    for name, trend in trends.items():
        if name.endswith("handles"):
            assert trend.growth <= MOST_HANDLES, (name, figures[name])
        elif name != "seconds":
            assert trend.growth <= (MOST_DISK_MB if "home" in name else MOST_MB), (name, figures[name])


def test_control_a_megabyte_a_study_is_growth() -> None:
    assert Trend.of([100.0 + study for study in range(STUDIES)]).growth > MOST_MB
    assert Trend.of([100.0 + study % 3 for study in range(STUDIES)]).growth < 1
