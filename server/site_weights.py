"""Weight of each site in the mean, from the enrolment record and never from a reply."""

from __future__ import annotations

import math

from semc.config import FederationConfig
from server.registry import Registry


def site_weights(federation: FederationConfig, registry: Registry) -> dict[str, float]:
    """Return the weight of every named site: its enrolled images n, sqrt(n), or 1.

    Raises:
        SemcError: KEY_UNREGISTERED where a named site is not enrolled.
    """
    enrolled = registry.restricted_to(federation.sites).sites
    match federation.weight:
        case "n":
            return {site: float(entry.num_examples) for site, entry in enrolled.items()}
        case "sqrt_n":
            return {site: math.sqrt(entry.num_examples) for site, entry in enrolled.items()}
        case "uniform":
            return dict.fromkeys(enrolled, 1.0)
