"""How fast the coordinator looks and how long it waits where the study does not say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Waits of the round loop, seconds."""

    poll: float = 0.1
    """First wait between two looks for replies."""
    growth: float = 0.04
    """The wait grows to this share of the time already spent. A look costs about 7 ms of processor time per
    site (4 in the SuperLink, 3 here), which sites on the same machine would miss."""
    slowest_poll: float = 1.0
    """Longest wait between two looks."""
    roster: float = 0.5
    """Wait between two looks at who is online."""
    offline_grace: float = 180.0
    """How long a site may have been offline, in this round and before, while a round whose quorum is met
    waits for it; a network cut of 80 s is noticed after up to 60 s and must not cost the site its work."""
    retry: float = 1.0
    """Before a lost message is sent a second time; doubled each further time."""
    online_margin: float = 5.0
    """A site whose heartbeat lease ends sooner than this counts as offline: asking for its reply then would
    make Flower delete the message."""

    def next_poll(self, waited: float) -> float:
        """Return the next wait after having waited this long."""
        return min(self.slowest_poll, max(self.poll, self.growth * waited))
