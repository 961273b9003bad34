"""Deadlines learnt from a site's own answers."""

from __future__ import annotations

import pytest

from semc.reporting.receipt import SignedReceipt, SiteReceipt
from server.deadlines import site_deadlines
from tests.server.federation import tiny_study

DIGEST = "a" * 64


def receipts(*rounds: dict[str, float | None]) -> list[SignedReceipt]:
    """Return rounds with each site's seconds; None for a site that was late."""
    return [
        SignedReceipt(
            study_digest=DIGEST,
            run="run",
            round=number,
            kind="train",
            sites={
                site: SiteReceipt(state="late", stage="train", reason="L_DEADLINE")
                if seconds is None
                else SiteReceipt(state="in", seconds=seconds)
                for site, seconds in sites.items()
            },
            incoming_sha256=DIGEST,
            outgoing_sha256=DIGEST,
            previous="",
            signature="",
        )
        for number, sites in enumerate(rounds, start=1)
    ]


FEDERATION = tiny_study(
    sites=["large", "small"], deadline_seconds=1000.0, deadline_floor_seconds=20.0, deadline_factor=3.0
).federation


def test_without_history_every_site_has_the_longest_wait() -> None:
    assert site_deadlines(FEDERATION, []) == {"large": 1000.0, "small": 1000.0}


def test_each_site_has_its_own_with_floor_and_ceiling() -> None:
    assert site_deadlines(FEDERATION, receipts({"large": 90.0, "small": 2.0})) == {
        "large": 270.0,
        "small": 20.0,
    }
    assert site_deadlines(FEDERATION, receipts({"large": 900.0, "small": 8.0}))["large"] == 1000.0


def test_the_slowest_of_the_last_five_counts_and_late_rounds_do_not() -> None:
    rounds: list[dict[str, float | None]] = [{"small": 10.0 + n} for n in range(3)]
    history = receipts({"small": 300.0}, {"small": None}, *rounds, {"small": 13.0})
    assert site_deadlines(FEDERATION, history)["small"] == 900.0
    assert site_deadlines(FEDERATION, [*history, *receipts({"small": 11.0})])["small"] == pytest.approx(39.0)


def test_a_site_that_was_late_gets_the_longest_wait_again() -> None:
    """It may have become slower for good; with the learnt deadline it would be late for ever."""
    history = receipts({"large": 90.0}, {"large": None})
    assert site_deadlines(FEDERATION, history)["large"] == 1000.0
    assert site_deadlines(FEDERATION, [*history, *receipts({"large": 300.0})])["large"] == 900.0


def test_an_answer_whose_time_is_not_known_teaches_nothing() -> None:
    history = receipts({"large": 90.0})
    unknown = history[0].model_copy(update={"sites": {"large": SiteReceipt(state="in", seconds=None)}})
    assert site_deadlines(FEDERATION, [unknown])["large"] == 1000.0
    assert site_deadlines(FEDERATION, [*history, unknown])["large"] == 270.0


def test_a_floor_above_the_longest_wait_is_without_effect() -> None:
    federation = tiny_study(sites=["small"], deadline_seconds=5.0, deadline_floor_seconds=300.0).federation
    assert site_deadlines(federation, receipts({"small": 0.1})) == {"small": 5.0}
