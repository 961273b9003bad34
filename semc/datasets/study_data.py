"""A site's rows as one study reads them: patient by patient where a guarantee holds for each, else all together."""

from __future__ import annotations

from semc.config import StudyConfig
from semc.config.site import SiteDataConfig
from semc.datasets.private_site_data import PrivateSiteData, build_private_site_data
from semc.datasets.sample import SiteData
from semc.datasets.site_data import build_site_data


def build_study_data(site: SiteDataConfig, study: StudyConfig) -> SiteData | PrivateSiteData:
    """Return what a study's trainer would read at a site; the two readings divide patients differently.

    Args:
        site: The site's data section.
        study: Its mode of privacy, classes and batch size decide.

    Raises:
        SemcError: As :func:`build_private_site_data` or :func:`build_site_data`.
    """
    if study.privacy.private:
        return build_private_site_data(site, study.data)
    return build_site_data(site, study.data, study.training.batch_size)
