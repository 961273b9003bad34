"""From Flower's context to a hospital: which site file, and what of it stays warm in this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flwr.app import Context

from client.data_fingerprint import DataFingerprint, SiteDataWatch
from client.environment import SITE_FILE
from client.privacy_gate import policy_of
from client.training_round import SiteTrainer
from semc.config import SiteConfig, SitePolicy, StudyConfig, load_site
from semc.exit_codes import ExitCode, SemcError

if TYPE_CHECKING:
    from client.private_round import PrivateSiteTrainer

_MOST_WARM_SITES: Final = 16
"""A deployed process serves one site; a simulation's process may be lent to several in turn."""

SiteOf = Callable[[Context], Path]
"""How an app finds its site file: from the environment where deployed, from the partition in a simulation."""


def deployed_site(_context: Context) -> Path:
    """Return the site file this process was started for.

    Raises:
        SemcError: CONFIG_NOT_FOUND where the process was not started by `semc-client`.
    """
    path = os.environ.get(SITE_FILE)
    if path is None:
        raise SemcError(
            ExitCode.CONFIG_NOT_FOUND, "This process was not told its site file.", "start it with semc-client"
        )
    return Path(path)


class WarmSite:
    """A site's configuration and, once a study has arrived, its trainer.

    Args:
        site_file: The hospital's YAML.
    """

    def __init__(self, site_file: Path) -> None:
        self.config = load_site(site_file)
        self._watch = SiteDataWatch(self.config)
        self._made_for: _MadeFor | None = None
        self._trainer: SiteTrainer | PrivateSiteTrainer | None = None

    def trainer(self, study: StudyConfig) -> SiteTrainer | PrivateSiteTrainer:
        """Return the trainer of a study, made anew where study, policy or data are not those of the last message.

        With patient-level privacy nobody looks whether data changed: no row is opened before the ledger has an entry,
        and whether a site answers must depend on no single patient (DECISIONS, 2026-11-28).

        Raises:
            SemcError: Where policy, ledger, data or device cannot serve the study.
        """
        data = None if study.privacy.private else self._watch.now()
        made_for = _MadeFor(study, policy_of(self.config), data)
        if self._trainer is None or made_for != self._made_for:
            self._trainer = None  # let go of the old network before the new one is built
            self._trainer = _trainer_of(self.config, study, data)
            self._made_for = made_for
        return self._trainer


@dataclass(frozen=True)
class _MadeFor:
    """What a trainer was made for; another one is needed where any of it changed."""

    study: StudyConfig
    policy: SitePolicy | None
    data: DataFingerprint | None


@lru_cache(maxsize=_MOST_WARM_SITES)
def warm_site(site_file: Path) -> WarmSite:
    """Return the site of a file, the same object for as long as this process remembers it."""
    return WarmSite(site_file)


def _trainer_of(
    site: SiteConfig, study: StudyConfig, data: DataFingerprint | None
) -> SiteTrainer | PrivateSiteTrainer:
    if not study.privacy.private:
        return SiteTrainer(site, study, data)
    from client.private_round import PrivateSiteTrainer  # brings opacus, which takes seconds to load

    return PrivateSiteTrainer(site, study)
