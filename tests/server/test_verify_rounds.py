"""What the real round loop signs is what `semc-server verify` accepts, however the run went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from semc.exit_codes import ExitCode, SemcError
from semc.reporting import StudyResult
from semc.reporting.receipt_agreement import check_result
from server.home import Home
from server.receipt_signing import ReceiptSigner
from server.rounds import run_study
from server.run_folder import RunFolder
from server.verify import VerifiedRun, verify_run
from tests.server.federation import (
    FAST,
    ScriptedGrid,
    ScriptedSite,
    error_reply,
    honest,
    registry_of,
    tiny_model,
    tiny_study,
)

SIZES = {"north": 10, "south": 20, "west": 70}
RUN = "tiny-001"


def run(home: Home, *, refusing: dict[str, set[int]] | None = None, **federation: Any) -> StudyResult:
    """Run two rounds; a site declines in the rounds that `refusing` names, 3 is the closing evaluation."""
    folder = home.run(RUN)
    assert folder is not None
    folder.root.mkdir(parents=True, exist_ok=True)
    study = tiny_study(**{"quorum": 2, **federation})
    folder.study_file.write_text(study.to_yaml(), encoding="utf-8")

    def answer(site: ScriptedSite, message: Message) -> Message:
        number = int(message.metadata.group_id)
        if number in (refusing or {}).get(site.name, set()):
            return error_reply(message, 2, "E_DATA")
        return honest(site, message)

    sites = [ScriptedSite(name, step=float(step), answer=answer) for step, name in enumerate(SIZES, start=1)]
    signer = ReceiptSigner.load_or_make(home.receipts_key)
    with folder.lock():
        return run_study(
            ScriptedGrid(sites),
            study,
            registry_of(SIZES),
            folder,
            model=tiny_model(),
            pace=FAST,
            signer=signer,
        )


def verified(home: Home) -> VerifiedRun:
    folder = home.run(RUN)
    assert folder is not None
    return verify_run(home, folder)


def test_a_whole_run_is_accepted_with_every_site_weight_and_payload(tmp_path: Path) -> None:
    home = Home(tmp_path)
    result = run(home)
    found = verified(home)
    assert found.exit_code() is ExitCode.OK
    assert [receipt.kind for receipt in found.receipts] == ["train", "train", "evaluate"]
    assert (
        found.receipts[1].outgoing_sha256 == found.receipts[2].incoming_sha256 == result.final_weights_sha256
    )
    for receipt in found.receipts[:2]:
        total = sum(site.weight or 0.0 for site in receipt.sites.values())
        shares = {name: (site.weight or 0.0) / total for name, site in receipt.sites.items()}
        assert shares == pytest.approx({name: size / 100 for name, size in SIZES.items()})
        assert len({site.payload_sha256 for site in receipt.sites.values()} - {""}) == 3
        assert all(site.attempts == 1 and site.seconds is not None for site in receipt.sites.values())


@pytest.mark.parametrize("missing", [{"south": {1}}, {"south": {2}, "west": {1}}, {"north": {3}}])
def test_a_subset_is_accepted_as_one_and_as_nothing_else(
    tmp_path: Path, missing: dict[str, set[int]]
) -> None:
    home = Home(tmp_path)
    result = run(home, refusing=missing)
    found = verified(home)
    assert found.exit_code() is ExitCode.COMPLETE_ON_SUBSET
    for site, numbers in missing.items():
        for number in numbers:
            entry = found.receipts[number - 1].sites[site]
            assert (entry.state, entry.reason) == ("declined", "E_DATA")
            assert entry.weight is None
    with pytest.raises(SemcError, match="say complete on subset"):
        check_result(result.model_copy(update={"outcome": "complete"}), found.public_key, RUN)


def test_a_run_below_its_quorum_is_accepted_and_again_when_it_has_gone_on(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(SemcError, match="Round 2 ended with 1 of the 2"):
        run(home, refusing={"north": {2}, "south": {2}})
    stopped = verified(home)
    assert stopped.exit_code() is ExitCode.QUORUM_LOST
    assert stopped.receipts[-1].outgoing_sha256 == ""
    run(home)
    found = verified(home)
    assert found.exit_code() is ExitCode.OK
    assert found.receipts[0] == stopped.receipts[0]
    assert [receipt.round for receipt in found.receipts] == [1, 2, 3]


def test_a_run_that_no_site_joined_has_nothing_signed_and_is_no_success(tmp_path: Path) -> None:
    home = Home(tmp_path)
    folder = home.run(RUN)
    assert folder is not None
    folder.root.mkdir(parents=True)
    study = tiny_study(quorum=2, join_timeout_seconds=0.05)
    folder.study_file.write_text(study.to_yaml(), encoding="utf-8")
    signer = ReceiptSigner.load_or_make(home.receipts_key)
    gone = [ScriptedSite(name, online=lambda: False) for name in SIZES]
    with pytest.raises(SemcError) as caught:
        run_study(
            ScriptedGrid(gone),
            study,
            registry_of(SIZES),
            folder,
            model=tiny_model(),
            pace=FAST,
            signer=signer,
        )
    assert caught.value.code is ExitCode.QUORUM_LOST
    found = verified(home)
    assert found.receipts == ()
    assert found.exit_code() is ExitCode.QUORUM_LOST


@given(
    refusing=st.dictionaries(
        st.sampled_from(sorted(SIZES)), st.sets(st.integers(1, 3), max_size=3), max_size=3
    )
)
@settings(max_examples=25, deadline=None)
def test_whoever_is_missing_the_record_says_so(
    tmp_path_factory: pytest.TempPathFactory, refusing: dict[str, set[int]]
) -> None:
    home = Home(tmp_path_factory.mktemp("home"))
    below = [number for number in (1, 2) if sum(number in rounds for rounds in refusing.values()) > 1]
    if below:
        with pytest.raises(SemcError):
            run(home, refusing=refusing)
    else:
        run(home, refusing=refusing)
    found = verified(home)
    whole = not any(refusing.values())
    expected = ExitCode.OK if whole else ExitCode.QUORUM_LOST if below else ExitCode.COMPLETE_ON_SUBSET
    assert found.exit_code() is expected
    last = below[0] if below else 3
    assert [receipt.round for receipt in found.receipts] == list(range(1, last + 1))
    for receipt in found.receipts:
        absent = {site for site, entry in receipt.sites.items() if entry.state != "in"}
        assert absent == {site for site, rounds in refusing.items() if receipt.round in rounds}


def test_a_run_without_a_coordinators_home_is_signed_with_a_key_of_its_own(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "server")
    folder.root.mkdir()
    sites = [ScriptedSite(name, step=1.0) for name in SIZES]
    result = run_study(
        ScriptedGrid(sites), tiny_study(), registry_of(SIZES), folder, model=tiny_model(), pace=FAST
    )
    check_result(result, ReceiptSigner.load(folder.receipts_key).public_key, "server")
