"""Random faults from a seed: who is killed, when, how often; and one study under them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from semc.config import StudyConfig
from tests.faults.federation import Federation, small_study, wait_for
from tests.faults.strike import Stage, Target, bring_back, kill, stop_at

MOST_STRIKES = 3
QUICK_SEEDS = (4,)
"""Those of every `make test`."""
_STAGES = tuple(stage for stage in Stage if stage is not Stage.IDLE)
_TARGETS = (*Target, Target.WORKER, Target.SERVERAPP)
_LONGEST_PAUSE_SECONDS = 6.0
_LONGEST_SECONDS = 420.0


@dataclass(frozen=True)
class Strike:
    """One kill."""

    target: Target
    site: str
    """Whose client or worker."""
    stage: Stage | None
    """None = whatever is going on after the pause."""
    pause_seconds: float
    """From the beginning of the study, or from the strike before, until this one is prepared."""

    def __str__(self) -> str:
        when = self.stage or "any time"
        whose = f" of {self.site}" if self.target in (Target.CLIENT, Target.WORKER) else ""
        return f"{self.target}{whose} {when} +{self.pause_seconds:.1f} s"


def strikes(seed: int, sites: Sequence[str]) -> list[Strike]:
    """Return the schedule of a seed: one to three kills; two of three at a certain stage, the others at any time."""
    draw = random.Random(seed)
    return [
        Strike(
            draw.choice(_TARGETS),
            draw.choice(list(sites)),
            draw.choice(_STAGES) if draw.random() < 2 / 3 else None,
            draw.uniform(0, _LONGEST_PAUSE_SECONDS),
        )
        for _ in range(draw.randint(1, MOST_STRIKES))
    ]


def run_schedule(federation: Federation, study: StudyConfig, schedule: Sequence[Strike]) -> int:
    """Run a study under a schedule and check that nothing was lost, doubled or orphaned.

    Returns:
        How many strikes came before the study's end; the others hit an idle federation.

    Raises:
        AssertionError: Something was.
    """
    reference = federation.reference(study)
    run = federation.start(study)
    run.wait_for_event("submitted")
    hits = 0
    for strike in schedule:
        time.sleep(strike.pause_seconds)
        if strike.stage is not None:
            federation.plan.arm([stop_at(strike.stage, strike.target, strike.site)])
            wait_for(lambda: federation.plan.stopped() is not None or run.has_ended(), str(strike), 240)
        ended = run.has_ended()
        kill(federation, strike.target, strike.site)
        federation.plan.release()
        bring_back(federation, strike.target, None if ended else run)
        hits += not ended
    run.wait(_LONGEST_SECONDS)
    run.assert_whole(reference)
    wait_for(lambda: not federation.orphans(), f"orphans to end: {federation.orphans()}", 20)
    return hits


def run_seeds(
    federation: Federation, seeds: Iterable[int], tell: Callable[[dict[str, Any]], None]
) -> dict[int, str]:
    """Run the schedules of some seeds one after the other; one that fails does not keep the others from running.

    Args:
        federation: Where.
        seeds: Which.
        tell: Given what became of each.

    Returns:
        Seed to what was wrong, for those where something was.
    """
    study = small_study(federation.names)
    problems = {}
    for seed in seeds:
        schedule = strikes(seed, federation.names)
        started, problem, hits = time.monotonic(), "", 0
        try:
            federation.start_what_ended()
            hits = run_schedule(federation, study, schedule)
        except AssertionError as error:
            problem = problems[seed] = str(error)
            federation.plan.release()
            federation.kill_everything()
        tell(
            {
                "kind": "programs",
                "seed": seed,
                "strikes": len(schedule),
                "hits": hits,
                "what": [str(strike) for strike in schedule],
                "seconds": round(time.monotonic() - started, 1),
                "problem": problem,
            }
        )
    return problems
