"""What a simulated hospital needs for a study with patient-level privacy: a policy of its own and an empty ledger.

A hospital makes both itself, as deliberate acts; a simulation's hospitals are nobody's, so it makes them here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import yaml

from semc.config import SiteConfig, SitePolicy, StudyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.privacy.limits import check_plan, effective

POLICY: Final = "policy.yaml"
LEDGER: Final = "ledger"


def with_policy(site: SiteConfig, study: StudyConfig, num_patients: int, folder: Path) -> SiteConfig:
    """Write a policy and make a ledger in a run's folder, and return the site file that names them.

    Args:
        site: The hospital, with the run's state directory.
        study: The study; the policy allows exactly what it asks.
        num_patients: Training patients of the hospital.
        folder: The hospital's folder in the run.

    Raises:
        SemcError: POLICY_REFUSED where the hospital has too few patients, BUDGET_REFUSED where the study costs more
            than it says.
    """
    from client.privacy_gate import ledger_place
    from semc.privacy.ledger import Ledger

    privacy = study.privacy
    check_plan(study)
    policy = SitePolicy.model_validate(
        {
            "patients": num_patients,
            "modes": ["patient_dp"],
            "min_patients": privacy.min_patients,
            "budget": {"epsilon_total": privacy.epsilon, "delta": privacy.delta},
        }
    )
    if num_patients < privacy.min_patients:
        raise SemcError(
            ExitCode.POLICY_REFUSED,
            f"Hospital '{site.site}' has {num_patients} training patients, the study asks for {privacy.min_patients}.",
            "make larger hospitals (`semc-sim sites --patients`), or lower privacy.min_patients",
        )
    limits = effective(study, policy)
    (folder / POLICY).write_text(yaml.safe_dump(policy.model_dump(mode="json")), encoding="utf-8")
    site = site.model_copy(update={"policy": folder / POLICY, "ledger": folder / LEDGER})
    Ledger.create(
        ledger_place(site),
        site=site.site,
        patients=num_patients,
        delta=limits.delta,
        epsilon_total=privacy.epsilon,
    )
    return site
