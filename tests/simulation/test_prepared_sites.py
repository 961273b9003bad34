"""Virtual sites differ from deployed ones only where the machine they share makes them."""

from __future__ import annotations

from pathlib import Path

from semc.config import StudyConfig, load_site
from simulation.run import prepare


def test_virtual_sites_share_a_gpu_and_reach_no_coordinator(
    hospitals: Path, study: StudyConfig, tmp_path: Path
) -> None:
    run = prepare(study, hospitals, tmp_path / "run")
    for name in study.federation.sites:
        deployed = load_site(hospitals / name / "site.yaml")
        virtual = load_site(run.site_file(name))
        assert deployed.exclusive_device
        expected = deployed.model_copy(
            update={
                "state_directory": run.site_file(name).parent / "state",
                "coordinator": None,
                "exclusive_device": False,
            }
        )
        changed = {
            "policy",
            "ledger",
            "private_key",
        }  # paths beside the copied file; never read in a simulation
        assert virtual.model_dump(exclude=changed) == expected.model_dump(exclude=changed)
