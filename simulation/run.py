"""The one call of Flower's simulation runtime: the deployed server and client apps, on one machine, under Ray.

A run is prepared as a folder that the server app reads (study, enrolment record) and one site file per hospital
that the client app reads. Nothing here trains or aggregates; a simulated federation is the deployed one without a
network.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from semc.config import SiteConfig, StudyConfig, load_site
from semc.datasets.study_data import build_study_data
from semc.exit_codes import ExitCode, SemcError
from semc.reporting.result import StudyResult
from simulation.private_site import with_policy
from simulation.site_folder import SITE_FILE

if TYPE_CHECKING:
    from flwr.app import Context


@dataclass(frozen=True)
class Resources:
    """What one run may use of this machine; a federation's virtual sites share it as Ray counts."""

    cpus_per_site: float = 1.0
    gpus_per_site: float = 0.0
    total_cpus: int = os.cpu_count() or 1
    """Processes at a time, each with one thread; for a model trained alone, its threads."""
    ray_address: str | None = None
    """host:port of a running Ray cluster to join, "auto" for this machine's; None starts one here."""

    @classmethod
    def share(cls, runs: int, *, gpus_per_site: float = 0.0, ray_address: str | None = None) -> Resources:
        """Return what each of several runs at the same time may use: its part of the cores and GPUs.

        Args:
            runs: How many at the same time.
            gpus_per_site: Fraction of a GPU per virtual site if one run had the machine to itself.
            ray_address: A cluster counts for itself what all runs use.
        """
        cores = max(1, (os.cpu_count() or 1) // runs)
        if ray_address is None and 0 < gpus_per_site < 1:
            gpus_per_site = min(1.0, gpus_per_site * runs)
        return cls(gpus_per_site=gpus_per_site, total_cpus=cores, ray_address=ray_address)

    @property
    def processes(self) -> int:
        """How many models may train or answer at a time outside of Ray; one GPU is counted."""
        on_gpu = max(1, int(1 / self.gpus_per_site)) if self.gpus_per_site > 0 else self.total_cpus
        return min(self.total_cpus, on_gpu)

    def init_args(self) -> dict[str, int | str | bool]:
        """Return the arguments of `ray.init`; a cluster that runs already knows its own processors."""
        args: dict[str, int | str | bool] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.ray_address is not None:
            return {"address": self.ray_address, **args}
        # "local": a cluster that happens to run on this machine is nobody's to join unasked
        return {"address": "local", "num_cpus": self.total_cpus, "include_dashboard": False, **args}


@dataclass(frozen=True)
class SimulatedRun:
    """Folders of one simulated run: what the server app reads and writes, and a site file per hospital."""

    study: StudyConfig
    folder: Path

    @property
    def server_folder(self) -> Path:
        """The run folder of the server app."""
        return self.folder / "server"

    def require_fresh(self) -> None:
        """Refuse a folder that holds a run already.

        Raises:
            SemcError: USAGE.
        """
        if self.server_folder.exists():
            raise SemcError(
                ExitCode.USAGE,
                "The output folder already holds a run.",
                "give another --out, or remove that folder first",
            )

    def site_file(self, site: str) -> Path:
        """The site file of one hospital; its state lies beside it."""
        return self.folder / "sites" / site / SITE_FILE


def prepare(study: StudyConfig, sites: Path, folder: Path) -> SimulatedRun:
    """Write the run folder and this run's site files.

    The site files are copies whose state directory lies in the run folder, so that one set of hospitals serves many
    runs and a hospital's own folder is only read.

    Args:
        study: The resolved study.
        sites: Folder made by `semc-sim sites`: one folder per hospital and `sites.json`.
        folder: Where this run's files go; made if absent.

    Raises:
        SemcError: USAGE where `folder` holds a run, DATA_NOT_FOUND where a named site has no folder, and whatever a
            site's file or data are refused for.
    """
    from server.registry import rehearsal_registry
    from server.run_folder import RunFolder
    from simulation.make_sites import read_site_counts

    run = SimulatedRun(study, folder.resolve())
    run.require_fresh()
    counts = read_site_counts(sites)
    for name in study.federation.sites:
        source = sites / name / SITE_FILE
        if not source.is_file() or name not in counts:
            raise SemcError(
                ExitCode.DATA_NOT_FOUND,
                f"The study names site '{name}', which the sites folder does not have.",
                f"make it with `semc-sim sites`, or name one of: {', '.join(sorted(counts))}",
            )
        site = load_site(source)
        num_patients = _train_patients(site, study)
        target = run.site_file(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        own = site.model_copy(
            update={
                "state_directory": target.parent / "state",
                "coordinator": None,
                "exclusive_device": False,  # Ray shares a GPU among sites by the fractions it was given
            }
        )
        if study.privacy.private:
            own = with_policy(own, study, num_patients, target.parent)
        target.write_text(yaml.safe_dump(own.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    images = {name: counts[name].num_train_images for name in study.federation.sites}
    RunFolder(run.server_folder).create(study, rehearsal_registry(images))
    return run


def _train_patients(site: SiteConfig, study: StudyConfig) -> int:
    """Return a site's training patients; refuse data that do not fit the study here, where the reason can be told."""
    try:
        rows = build_study_data(site.data, study).train
    except SemcError as error:
        raise SemcError(error.code, f"Site '{site.site}': {error.problem}", error.fix) from error
    return len({row.group for row in rows})


def run_simulation(run: SimulatedRun, resources: Resources | None = None) -> StudyResult:
    """Run the study on Flower's Ray runtime and return what the server wrote.

    Raises:
        SemcError: The one the server stopped with, e.g. QUORUM_LOST; RUN_FAILED where the runtime broke. What was
            reached stands in the run's folder.
    """
    resources = resources or Resources()
    _quiet_environment(resources)
    from flwr import simulation as flower

    logging.getLogger("flwr").setLevel(
        logging.ERROR
    )  # its advice to use `flwr run`; ours are the run's events
    from client.app import build_app as build_client_app
    from server.app import build_app as build_server_app

    result_file = run.server_folder / "result.json"
    broken: Exception | None = None
    try:
        flower.run_simulation(
            server_app=build_server_app(run.server_folder),
            client_app=build_client_app(_site_by_partition(run)),
            num_supernodes=len(run.study.federation.sites),
            backend_name="ray",
            backend_config={
                "client_resources": {
                    "num_cpus": resources.cpus_per_site,
                    "num_gpus": resources.gpus_per_site,
                },
                "init_args": {**resources.init_args()},
            },
        )
    except SemcError:
        raise  # the server app's own
    except Exception as error:
        broken = error
    if broken is not None or not result_file.is_file():
        raise SemcError(
            ExitCode.RUN_FAILED,
            "The simulation ended without a result.",
            f"read the last lines of {run.server_folder.name}/events.jsonl",
        ) from broken
    return StudyResult.model_validate(json.loads(result_file.read_text(encoding="utf-8")))


def run_whole(run: SimulatedRun, resources: Resources | None = None) -> StudyResult:
    """Run a study whose figures are worth nothing unless every site took part in every round.

    Raises:
        SemcError: As :func:`run_simulation`, and COMPLETE_ON_SUBSET.
    """
    result = run_simulation(run, resources)
    if result.outcome != "complete":
        raise SemcError(
            result.exit_code(),
            "A site was missing in some round, so this run cannot be compared.",
            f"the receipts in {run.server_folder.name}/result.json say who and why",
        )
    return result


def _site_by_partition(run: SimulatedRun) -> Callable[[Context], Path]:
    """Return the client app's way from Flower's partition number to a site file; picklable for Ray's actors."""
    files = [run.site_file(name) for name in sorted(run.study.federation.sites)]

    def site_of(context: Context) -> Path:
        return files[int(context.node_config["partition-id"])]

    return site_of


def _quiet_environment(resources: Resources) -> None:
    """Set what flwr and Ray read at import: no telemetry, no proxies on loopback, one thread per site."""
    os.environ.update(
        {
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "NO_PROXY": "127.0.0.1,localhost",
            "OMP_NUM_THREADS": str(max(1, int(resources.cpus_per_site))),
        }
    )
