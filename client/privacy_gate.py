"""What this hospital's own policy says before anything of a study is done: its modes, its budget, its ledger.

Everything here is decided without looking at a single image or row, so that a refusal says nothing about them.
"""

from __future__ import annotations

from typing import Final

from semc.config import SiteConfig, SitePolicy, StudyConfig, load_policy
from semc.exit_codes import ExitCode, SemcError
from semc.privacy.ledger import Ledger, LedgerPlace
from semc.privacy.limits import Limits, check_mode, effective

ANCHOR: Final = "ledger.anchor"
"""In the state directory, apart from the ledger: an older copy of the one does not fit the other."""


def ledger_place(site: SiteConfig) -> LedgerPlace:
    """Return where a site's ledger and its anchor lie."""
    return LedgerPlace(folder=site.ledger, anchor=site.state_directory / ANCHOR)


def policy_of(site: SiteConfig) -> SitePolicy | None:
    """Return the hospital's policy, None where it has no policy file.

    Raises:
        SemcError: CONFIG_INVALID.
    """
    return load_policy(site.policy) if site.policy.is_file() else None


def check_policy(study: StudyConfig, site: SiteConfig) -> None:
    """Refuse a study whose privacy mode this hospital does not take part in.

    Raises:
        SemcError: POLICY_REFUSED, also where there is a ledger and no policy; CONFIG_INVALID where it is damaged.
    """
    policy = policy_of(site)
    if policy is not None:
        check_mode(study, policy)
    elif ledger_place(site).exists():
        raise SemcError(
            ExitCode.POLICY_REFUSED,
            "This hospital keeps a privacy ledger, and its policy file is missing.",
            "restore policy.yaml: without it nobody knows which studies the hospital allows",
        )


def private_limits(study: StudyConfig, site: SiteConfig) -> tuple[SitePolicy, Limits]:
    """Return the policy, and what a study with patient-level privacy may do here.

    Raises:
        SemcError: POLICY_REFUSED where there is no policy, it forbids what the study asks, or the site's rows
            name no patients.
    """
    policy = policy_of(site)
    if policy is None:
        raise SemcError(
            ExitCode.POLICY_REFUSED,
            "The study has patient-level privacy, and this hospital has no policy file that sets its budget.",
            "write policy.yaml beside the site file (policy.example.yaml explains every key), then "
            "`semc-client ledger init`",
        )
    if site.data.allow_ungrouped:
        raise SemcError(
            ExitCode.POLICY_REFUSED,
            "The site file accepts rows without a patient (data.allow_ungrouped), so no patient can be protected.",
            "give every row its patient and remove allow_ungrouped",
        )
    if site.data.format == "lp2025":
        raise SemcError(
            ExitCode.POLICY_REFUSED,
            "The site's data are in the layout lp2025, which names no patients, so none can be protected.",
            "write a manifest with a group column and use format: manifest",
        )
    return policy, effective(study, policy)


def note_unprotected(study: StudyConfig, site: SiteConfig) -> None:
    """Enter a study of mode none in the ledger, where the hospital keeps one, before it looks at any data.

    Its messages have no bound: weights and counts, but also whether it refuses because of the data.

    Raises:
        SemcError: LEDGER_INVALID.
    """
    place = ledger_place(site)
    if place.exists():
        Ledger(place, site=site.site).note_unprotected(study.digest())


def require_ledger(site: SiteConfig) -> Ledger:
    """Open the site's ledger.

    Raises:
        SemcError: LEDGER_INVALID where it is missing or cannot be trusted.
    """
    return Ledger(ledger_place(site), site=site.site)


def check_head(site: SiteConfig, head: str | None) -> None:
    """Refuse where the coordinator has seen an entry of this site's ledger that the ledger no longer holds.

    Whoever restores older copies of both ledger and anchor is found only so. A head the site never gave makes it
    refuse too: a coordinator that lies gets no answer.

    Args:
        site: The hospital.
        head: What the coordinator has seen, None where nothing.

    Raises:
        SemcError: LEDGER_INVALID.
    """
    if head is not None and not require_ledger(site).contains(head):
        raise SemcError(
            ExitCode.LEDGER_INVALID,
            "The coordinator has seen an entry of this privacy ledger that it no longer holds: it is an older copy.",
            "restore the newest ledger and anchor; budget that was spent after the older copy is spent",
        )
