"""Check of whether the images are still those of the last round: a study would stop at its next message."""

from __future__ import annotations

from typing import Final

from client.accepted_data import goes_on_with
from client.data_fingerprint import SiteDataWatch
from client.doctor.row import Row, passed, skipped, warning, wrong
from client.local_state import data_trained_last
from semc.config import SiteConfig, StudyConfig
from semc.exit_codes import ExitCode, SemcError

_NAME: Final = "images since last round"


def data_change_row(site: SiteConfig, study: StudyConfig | None) -> Row:
    """Hold the images against those of the last round; a file is read only where its size or its time changed.

    A site that trained no round, or private ones alone, has nothing to compare with: nothing is looked at.

    Args:
        site: The hospital.
        study: Whose last round; None: of the study trained last.
    """
    before = data_trained_last(site.state_directory, None if study is None else study.digest())
    if before is None:
        return skipped(_NAME, "no round was trained here that noted its images")
    try:
        if goes_on_with(site, SiteDataWatch(site).look(), before):
            return passed(_NAME, "unchanged")
    except SemcError as error:
        if error.code is not ExitCode.DATA_CHANGED:
            return wrong(_NAME, error)
        return warning(_NAME, f"{error.problem} A study refuses its next round here.", error.fix)
    return passed(_NAME, "changed, and accepted")
