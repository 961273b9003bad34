"""One hospital behind a bad link, and what a study must be in spite of it."""

from __future__ import annotations

import os
import signal
import time

import yaml

from tests.faults.bad_link import BadLink, Way
from tests.faults.fault_row import FaultRow
from tests.faults.federation import Federation, small_study, wait_for
from tests.faults.study_run import StudyRun

SITE = "north"
_SOME_BYTES = 400_000
"""A tenth of the weights."""


def dial(federation: Federation, address: str) -> None:
    """End the hospital's client in order and have it dial another address."""
    os.kill(federation.rehearsal.pid(SITE), signal.SIGTERM)
    wait_for(lambda: federation.rehearsal.has_ended(SITE), "the client to leave", 30)
    file = federation.site_files[SITE]
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    content["coordinator"]["address"] = address
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    federation.start_what_ended()


def begun(federation: Federation, **overrides: object) -> StudyRun:
    """Start a study, its reference having run first, and wait for its second round."""
    study = small_study(federation.names, **overrides)
    federation.reference(study)
    run = federation.start(study)
    run.wait_for_event("round", round=2)
    return run


def whole(federation: Federation, run: StudyRun, cell: str, struck: float, **figures: float) -> FaultRow:
    """Wait for the study's end and check it.

    Raises:
        AssertionError: Something was lost, or left behind.
    """
    run.wait(600)
    reference = federation.reference(run.study)
    run.assert_whole(reference)
    wait_for(lambda: not federation.orphans(), "orphans to end", 20)
    delay = run.seconds - reference.seconds
    recovered = run.seconds_to_progress(struck, SITE)
    return FaultRow("network", cell, "complete, bit-equal", recovered, delay, figures)


def reset_in_the_middle(federation: Federation, link: BadLink, way: Way) -> FaultRow:
    """Reset every connection of the hospital while weights go one way."""
    run, before = begun(federation), link.resets
    link.reset_after(way, _SOME_BYTES)
    wait_for(lambda: link.resets > before, "enough bytes for the reset")
    return whole(federation, run, f"reset in the middle of the {way}", time.time())
