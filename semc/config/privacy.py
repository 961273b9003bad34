"""The study's `privacy:` section."""

from __future__ import annotations

from typing import Literal

from semc.config.section import Section


class PrivacyConfig(Section):
    """Formal privacy of what leaves a site."""

    mode: Literal["none"] = "none"
    """none = the paper's objective; every report says that there is no formal guarantee."""
