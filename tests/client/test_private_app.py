"""The app under patient-level privacy, message by message: rollbacks, modes, and answers that tell nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from client.app import build_app
from client.privacy_gate import ledger_place
from client.site import warm_site
from semc.config import SiteConfig, StudyConfig, parse_study
from semc.models import build_model
from semc.parameter_exchange import split_parameters
from semc.privacy.ledger import Ledger
from semc.privacy.ledger_events import Unprotected
from semc.privacy.limits import plan_cost
from semc.protocol import (
    ARRAYS,
    CONFIG,
    DISCLOSED_NAMES,
    LEDGER_HEAD,
    METRICS,
    SERVER_ROUND,
    SHARED_TENSORS,
    STUDY,
    STUDY_DIGEST,
    TENSOR_STYPE,
    RefusalCode,
)
from semc.wire import pack
from tests.client.flower_message import context, question
from tests.client.opened_files import opened_in
from tests.client.private_site import PRIVATE_TEXT, private_site
from tests.client.small_study import STUDY_TEXT

PRIVATE = parse_study(PRIVATE_TEXT)
PLAIN = parse_study(STUDY_TEXT)


def weights(study: StudyConfig) -> bytes:
    return pack(split_parameters(build_model(study), study.federation.bn).shared, "fp32")


WEIGHTS = weights(PRIVATE)


def app_of(folder: Path) -> ClientApp:
    return build_app(lambda _context: folder / "site.yaml")


def ask(
    app: ClientApp,
    kind: str,
    round_number: int,
    *,
    head: str | None = None,
    study: StudyConfig = PRIVATE,
    payload: bytes = WEIGHTS,
) -> Message:
    config: dict[str, str | int] = {
        STUDY: study.to_yaml(),
        STUDY_DIGEST: study.digest(),
        SERVER_ROUND: round_number,
    }
    if head is not None:
        config[LEDGER_HEAD] = head
    records = RecordDict({CONFIG: ConfigRecord(config)})
    if kind != "query":
        array = Array(dtype="uint8", shape=(len(payload),), stype=TENSOR_STYPE, data=payload)
        records[ARRAYS] = ArrayRecord({SHARED_TENSORS: array})
    return app(message=question(records, kind), context=context())


def head_of(reply: Message) -> str:
    return str(reply.content[CONFIG][LEDGER_HEAD])


def copied(site: SiteConfig, to: Path) -> None:
    """Copy ledger and anchor, as a backup would."""
    place = ledger_place(site)
    to.mkdir()
    shutil.copytree(place.folder, to / "ledger")
    shutil.copy2(place.anchor, to / "anchor")


def restored(site: SiteConfig, source: Path) -> None:
    place = ledger_place(site)
    shutil.rmtree(place.folder)
    shutil.copytree(source / "ledger", place.folder)
    shutil.copy2(source / "anchor", place.anchor)


def test_a_whole_private_study_at_one_site(tmp_path: Path) -> None:
    site = private_site(tmp_path)
    app = app_of(tmp_path)
    with opened_in(site.data.root) as seen:
        assert ask(app, "query", 0).has_content()
        assert seen == []  # who are you, and does this study fit you, is answered without data
    first = ask(app, "train", 1)
    assert set(first.content) == {ARRAYS, CONFIG}
    second = ask(app, "train", 2, head=head_of(first))
    assert head_of(second) != head_of(first)
    closing = ask(app, "evaluate", 3, head=head_of(second))
    assert set(closing.content) == {METRICS}
    assert set(closing.content[METRICS]) <= DISCLOSED_NAMES


def test_older_copies_of_ledger_and_anchor_are_found_by_the_coordinators_memory(tmp_path: Path) -> None:
    site = private_site(tmp_path / "site")
    app = app_of(tmp_path / "site")
    copied(site, tmp_path / "backup")
    head = head_of(ask(app, "train", 1))
    restored(site, tmp_path / "backup")
    fresh = Ledger(ledger_place(site))  # whole in itself, so only somebody else's memory can tell
    assert fresh.spent() == 0
    with opened_in(site.data.root) as seen:
        for kind, number in (("train", 2), ("evaluate", 3)):
            refused = ask(app_of(tmp_path / "site"), kind, number, head=head)
            assert refused.error.reason == RefusalCode.LEDGER
        assert seen == []
    assert ask(app, "train", 2).error.reason == RefusalCode.LEDGER  # this very process remembers, too
    # the control: after a restart, with a coordinator without memory, the budget of round 1 is forgotten
    warm_site.cache_clear()
    assert ask(app, "train", 2).has_content()


@pytest.mark.parametrize("head", ["", "0" * 63, "Z" * 64, 7])
def test_a_head_that_is_none_is_a_malformed_instruction(tmp_path: Path, head: object) -> None:
    private_site(tmp_path)
    reply = ask(app_of(tmp_path), "train", 1, head=head)  # type: ignore[arg-type]
    assert reply.error.reason == RefusalCode.INSTRUCTION


def test_a_head_the_site_never_gave_is_refused(tmp_path: Path) -> None:
    private_site(tmp_path)
    assert ask(app_of(tmp_path), "train", 1, head="0" * 64).error.reason == RefusalCode.LEDGER


def test_refusals_are_equal_whatever_the_data(tmp_path: Path) -> None:
    replies = []
    for place in ("whole", "empty"):
        private_site(tmp_path / place, epsilon_total=plan_cost(PRIVATE, 1) * 0.9)
        if place == "empty":
            shutil.rmtree(tmp_path / place / "images")
        reply = ask(app_of(tmp_path / place), "train", 1)
        replies.append((reply.error.code, reply.error.reason))
    assert replies[0] == replies[1]
    assert replies[0][1] == RefusalCode.BUDGET


def test_what_fails_behind_the_reservation_has_one_code(tmp_path: Path) -> None:
    private_site(tmp_path)
    shutil.rmtree(tmp_path / "images")
    assert ask(app_of(tmp_path), "train", 1).error.reason == RefusalCode.INTERNAL
    # the control: in mode none the same fault is told
    plain = ask(app_of(tmp_path), "train", 1, study=PLAIN, payload=weights(PLAIN))
    assert plain.error.reason == RefusalCode.DATA


def test_a_study_of_mode_none_is_noted_and_ends_the_private_ones(tmp_path: Path) -> None:
    site = private_site(tmp_path)
    app = app_of(tmp_path)
    assert ask(app, "train", 1).has_content()
    plain = weights(PLAIN)
    for number in (1, 2):
        assert ask(app, "train", number, study=PLAIN, payload=plain).has_content()
    noted = [event for event in Ledger(ledger_place(site)).events() if isinstance(event, Unprotected)]
    assert [event.study_digest for event in noted] == [PLAIN.digest()]
    assert ask(app, "train", 2).error.reason == RefusalCode.POLICY


def test_the_policy_decides_about_modes(tmp_path: Path) -> None:
    private_site(tmp_path / "private", modes=["patient_dp"])
    refused = ask(app_of(tmp_path / "private"), "train", 1, study=PLAIN, payload=weights(PLAIN))
    assert refused.error.reason == RefusalCode.POLICY
    private_site(tmp_path / "plain", modes=["none"])
    assert ask(app_of(tmp_path / "plain"), "query", 0).error.reason == RefusalCode.POLICY


def test_an_evaluation_of_mode_none_is_noted_too(tmp_path: Path) -> None:
    site = private_site(tmp_path)
    reply = ask(app_of(tmp_path), "evaluate", 1, study=PLAIN, payload=weights(PLAIN))
    assert reply.has_content()  # exact counts of test patients, and statistics of training images behind them
    assert any(isinstance(event, Unprotected) for event in Ledger(ledger_place(site)).events())
    assert ask(app_of(tmp_path), "train", 1).error.reason == RefusalCode.POLICY


def test_a_handshake_of_mode_none_is_noted_before_it_looks_at_data(tmp_path: Path) -> None:
    site = private_site(tmp_path)
    shutil.rmtree(tmp_path / "images")
    assert ask(app_of(tmp_path), "query", 0, study=PLAIN).error.reason == RefusalCode.DATA
    assert any(isinstance(event, Unprotected) for event in Ledger(ledger_place(site)).events())


def test_a_policy_that_is_tightened_or_removed_holds_from_the_next_message_on(tmp_path: Path) -> None:
    site = private_site(tmp_path)
    app = app_of(tmp_path)  # one warm process throughout
    assert ask(app, "train", 1).has_content()
    content = yaml.safe_load(site.policy.read_text(encoding="utf-8"))
    tighter = {**content, "budget": {**content["budget"], "min_noise_multiplier": 50.0}}
    site.policy.write_text(yaml.safe_dump(tighter), encoding="utf-8")
    assert ask(app, "train", 2).error.reason == RefusalCode.POLICY
    assert ask(app, "evaluate", 3).error.reason == RefusalCode.POLICY
    site.policy.unlink()
    for kind, number in (("query", 0), ("train", 2), ("evaluate", 3)):
        assert ask(app, kind, number).error.reason == RefusalCode.POLICY
    assert (
        ask(app, "query", 0, study=PLAIN).error.reason == RefusalCode.POLICY
    )  # nobody knows what is allowed
    site.policy.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert ask(app, "train", 2).has_content()
