"""Checks of policy and privacy ledger: readable, whole, and what a study would cost; nothing is charged."""

from __future__ import annotations

from collections.abc import Iterator

from client.doctor.row import Row, checked, passed, skipped, warning, wrong
from client.ledger_view import history_of, view
from client.privacy_gate import ledger_place, policy_of, private_limits, require_ledger
from semc.config import SiteConfig, SitePolicy, StudyConfig, load_study
from semc.exit_codes import ExitCode, SemcError
from semc.privacy.accounting import rdp_epsilon
from semc.privacy.ledger_charges import check_usable
from semc.privacy.limits import check_mode, check_plan, mechanism_of


def privacy_rows(site: SiteConfig, study_name: str | None) -> Iterator[Row]:
    """Yield what stands between this site and a study with patient-level privacy.

    Args:
        site: The hospital.
        study_name: Study to price; None: policy and ledger only.
    """
    try:
        policy = policy_of(site)
    except SemcError as error:
        yield wrong("policy", error)
        return
    yield _policy(policy)
    yield _ledger(site, policy)
    if study_name is not None:
        try:
            study = load_study(study_name)
        except SemcError:
            return  # named by the check of the images
        yield checked("privacy of the study", lambda: _cost(study, site, policy))


def _policy(policy: SitePolicy | None) -> Row:
    if policy is None:
        return skipped("policy", "no policy file: studies with patient-level privacy are refused")
    modes = " or ".join(policy.modes) or "no study"
    if policy.budget is None:
        return passed("policy", f"{modes}; no privacy budget")
    total = policy.budget.epsilon_total
    return passed("policy", f"{modes}; {policy.patients} patients, epsilon {total:g} in all")


def _ledger(site: SiteConfig, policy: SitePolicy | None) -> Row:
    if not ledger_place(site).exists():
        if policy is None or policy.budget is None:
            return skipped("privacy ledger", "none, and no budget it could hold")
        fix = (
            f"`semc-client ledger init --patients {policy.patients}`, once; where there was a ledger, find it"
        )
        return warning("privacy ledger", "none: studies with patient-level privacy are refused", fix)
    try:
        found = view(site)
    except SemcError as error:
        return wrong("privacy ledger", error)
    if found.closed is not None:
        return warning("privacy ledger", "closed for good", "no study with patient-level privacy runs here")
    spent = f"whole, {found.entries} entries; epsilon {found.epsilon:.2f} of {found.limit:.2f} spent"
    if policy is not None and found.unprotected and not policy.accept_unprotected_history:
        fix = "only accept_unprotected_history in the policy allows private studies after them"
        return warning("privacy ledger", f"{spent}; studies without privacy were trained here", fix)
    return passed("privacy ledger", spent)


def _cost(study: StudyConfig, site: SiteConfig, policy: SitePolicy | None) -> str:
    """Price a study against policy and ledger, without reserving anything."""
    if not study.privacy.private:
        if policy is not None:
            check_mode(study, policy)
        return "mode none: no formal guarantee"
    check_plan(study)
    _, limits = private_limits(study, site)
    check_usable(require_ledger(site).events(), limits)
    history = history_of(site)
    assert history.delta is not None
    assert history.limit is not None
    rounds = [mechanism_of(study)] * study.federation.rounds
    own = rdp_epsilon(rounds, limits.delta)
    total = rdp_epsilon([*history.spent, *rounds], history.delta)
    for what, cost, limit in (("", own, limits.epsilon_study), (" with what is spent", total, history.limit)):
        if cost > limit:
            raise SemcError(
                ExitCode.BUDGET_REFUSED,
                f"Its {study.federation.rounds} rounds cost epsilon {cost:.2f}{what}; {limit:.2f} is allowed.",
                "plan fewer rounds or more noise (`semc-client ledger plan`)",
            )
    return f"epsilon {own:.2f} of {limits.epsilon_study:.2f}; {total:.2f} of {history.limit:.2f} with what is spent"
