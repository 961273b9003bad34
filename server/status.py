"""`semc-server status`: is the coordinator up, who is online, what ran."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from semc.exit_codes import SemcError
from semc.reporting.privacy_statement import in_short
from server.control import Control, RunStatus
from server.health import Health, ask_health
from server.home import Home
from server.registry import Registry
from server.run_folder import RunFolder
from server.run_outcome import settled_result
from server.run_state import run_state
from server.tls import days_left


@dataclass(frozen=True)
class SiteStatus:
    """One enrolled site."""

    site: str
    state: str
    """online | offline | registered | unregistered | unknown"""
    num_examples: int | None
    """Training images agreed at enrolment, None where the site did not say."""


@dataclass(frozen=True)
class RunSummary:
    """One run folder."""

    run: str
    outcome: str
    """The result's outcome; waiting, running, interrupted or stopped where it has none; "unreadable" where damaged."""
    privacy: str
    """What guarantee the run's messages carry, in words; empty where that is unreadable."""


@dataclass(frozen=True)
class CoordinatorStatus:
    """What `semc-server status` shows."""

    address: str
    health: Health
    certificate_days_left: float
    sites: tuple[SiteStatus, ...]
    runs: tuple[RunSummary, ...]
    flower_runs: tuple[RunStatus, ...]

    def to_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return asdict(self)


def read_status(home: Home) -> CoordinatorStatus:
    """Ask a coordinator how it is; one that is down is a status, not an error.

    Raises:
        SemcError: SERVER_UNREACHABLE where no coordinator was ever started with this home.
    """
    endpoint = home.endpoint()
    health = ask_health(endpoint.health_address)
    registry = Registry.load(home.root)
    nodes: dict[int, str] = {}
    runs: list[RunStatus] = []
    if health is Health.SERVING:
        control = Control(home)
        control.connect()
        nodes, runs = control.nodes(), control.runs()
    return CoordinatorStatus(
        address=endpoint.address,
        health=health,
        certificate_days_left=round(days_left(home.server_certificate), 1),
        sites=tuple(
            SiteStatus(site, nodes.get(entry.node_id or 0, "unknown"), entry.num_examples)
            for site, entry in sorted(registry.sites.items())
        ),
        runs=tuple(_summary(home, name) for name in sorted(path.name for path in home.runs.glob("*/"))),
        flower_runs=tuple(runs),
    )


def _summary(home: Home, name: str) -> RunSummary:
    folder = home.run(name)
    if folder is None:
        return RunSummary(name, "unreadable", "")
    try:
        result = settled_result(folder)
    except SemcError:  # one damaged file must not hide the coordinator and every other run
        return RunSummary(name, "unreadable", "")
    if result is None:
        return RunSummary(name, str(run_state(folder)), _planned(folder))
    return RunSummary(name, result.outcome, in_short(result.guarantee))


def _planned(folder: RunFolder) -> str:
    """Say what an unfinished run may cost at most: its study's own limit."""
    try:
        privacy = folder.study().privacy
    except SemcError:
        return ""
    if not privacy.private:
        return in_short(None)
    return f"patient-level privacy, epsilon at most {privacy.epsilon:g} at delta {privacy.delta:.0e}"
