"""How a hospital's ledger is made: one act, with everything that was trained here before."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from client.outbox import OUTBOX
from client.privacy_gate import ledger_place, policy_of
from semc.checkpoint import saved_states
from semc.config import BudgetConfig, SiteConfig, SitePolicy
from semc.exit_codes import ExitCode, SemcError
from semc.privacy.ledger import Ledger

_STUDY_FOLDER: Final = re.compile(r"[0-9a-f]{16}")
_ROUND: Final = "round-"


def make(site: SiteConfig, patients: int) -> list[str]:
    """Make a hospital's ledger from its policy and return, line by line, what was promised.

    Studies that left states of their rounds at this site, and no private replies, were trained without protection
    before there was a ledger; the ledger is made with them in it.

    Raises:
        SemcError: POLICY_REFUSED without a policy or budget, USAGE where `patients` is not the policy's number,
            LEDGER_INVALID where there is a ledger, DISK.
    """
    policy, budget = _policy_with_budget(site)
    if patients != policy.patients:
        raise SemcError(
            ExitCode.USAGE,
            f"--patients {patients} is not the policy's number of patients.",
            "check both: a ledger cannot be made again",
        )
    earlier = _unprotected_studies(site.state_directory)
    ledger = Ledger.create(
        ledger_place(site),
        site=site.site,
        patients=patients,
        delta=budget.delta,
        epsilon_total=budget.epsilon_total,
        unprotected=earlier,
    )
    head = ledger.head()
    lines = [
        f"The ledger of '{site.site}' is made. It promises, for good:",
        f"  whatever studies do, no patient is charged more than epsilon {budget.epsilon_total:g} at delta "
        f"{budget.delta:g} for everything that leaves;",
        f"  every round is charged before its images are opened, and no crash is refunded ({patients} patients);",
        "  a missing, changed or older ledger stops every study with patient-level privacy.",
        "Keep its folder and the state directory on reliable disks; restoring one from a backup stops the site.",
        f"Head, entry {head.seq}: {head.hash}",
    ]
    if earlier:
        lines.append(
            f"Noted: {len(earlier)} studies were trained here before, without patient-level privacy. Such studies need "
            "accept_unprotected_history in the policy to be followed by private ones."
        )
    return lines


def init_command(site: SiteConfig) -> str:
    """Return the whole command that makes this hospital's ledger.

    Raises:
        SemcError: POLICY_REFUSED without a policy or budget.
    """
    policy, _ = _policy_with_budget(site)
    return f"semc-client ledger init --site SITE --patients {policy.patients}"


def _policy_with_budget(site: SiteConfig) -> tuple[SitePolicy, BudgetConfig]:
    policy = policy_of(site)
    if policy is None or policy.budget is None:
        raise SemcError(
            ExitCode.POLICY_REFUSED,
            "There is no policy with a budget that a ledger could hold studies to.",
            "write policy.yaml with a budget section (policy.example.yaml explains it)",
        )
    return policy, policy.budget


def _unprotected_studies(state_directory: Path) -> list[str]:
    """Return the studies of mode none that were trained here, by the 16 digits their folders are named with.

    An adopted model's folder holds no round, and a study with private replies is of an older, lost ledger.
    """
    return sorted(
        folder.name
        for folder in state_directory.glob("*")
        if _STUDY_FOLDER.fullmatch(folder.name)
        and saved_states(folder, _ROUND)
        and not (folder / OUTBOX).is_dir()
    )
