"""Weight of each site in the mean, from the enrolment record and never from a reply."""

from __future__ import annotations

import math

from semc.config import FederationConfig
from semc.exit_codes import ExitCode, SemcError
from server.registry import Registry


def site_weights(federation: FederationConfig, registry: Registry) -> dict[str, float]:
    """Return the weight of every named site: its enrolled images n, sqrt(n), or 1.

    Raises:
        SemcError: KEY_UNREGISTERED where a named site is not enrolled; USAGE where the weight takes a number of images
            and a site is enrolled without.
    """
    enrolled = registry.restricted_to(federation.sites).sites
    if federation.weight == "uniform":
        return dict.fromkeys(enrolled, 1.0)
    images = {site: entry.num_examples for site, entry in enrolled.items() if entry.num_examples is not None}
    without = [site for site in enrolled if site not in images]
    if without:
        raise SemcError(
            ExitCode.USAGE,
            f"Sites are enrolled without their number of images, which federation.weight {federation.weight} takes: "
            f"{', '.join(without)}.",
            "enrol them again with --images N, or weigh all sites alike: federation.weight uniform",
        )
    share = math.sqrt if federation.weight == "sqrt_n" else float
    return {site: share(number) for site, number in images.items()}
