"""The ledger charges before data are opened, refuses over a limit and whatever is not as it was left."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from semc.exit_codes import ExitCode, SemcError
from semc.privacy import ledger_chain, ledger_store
from semc.privacy.accounting import Mechanism, rdp_epsilon
from semc.privacy.ledger import Ledger, LedgerPlace
from semc.privacy.ledger_anchor import Anchor, read_anchor, write_anchor
from semc.privacy.ledger_events import Close, Commit, Refuse, Reserve, canonical, entry_hash, parse_event
from tests.semc.privacy.ledgers import (
    INCOMING,
    MECHANISM,
    OUTGOING,
    STUDY_A,
    STUDY_B,
    limits,
    new_ledger,
    place_in,
    round_of,
    without_waiting,
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)


def refused(code: ExitCode, act: Callable[[], object]) -> str:
    with pytest.raises(SemcError) as refusal:
        act()
    assert refusal.value.code is code, refusal.value
    return refusal.value.line()


# What is charged


def test_every_reservation_counts(tmp_path: Path) -> None:
    place, ledger = new_ledger(tmp_path)
    first = ledger.reserve(round_of(number=1), limits())
    assert first.seq == 2
    assert first.head == ledger.head().hash
    ledger.commit(first.seq, OUTGOING)
    ledger.reserve(round_of(number=1), limits())  # the same round again, never committed
    assert ledger.spent() == pytest.approx(rdp_epsilon([MECHANISM] * 2, 1e-5))
    assert Ledger(place, site="north").spent(STUDY_A) == ledger.spent()
    assert ledger.spent(STUDY_B) == 0


def test_the_total_refuses_and_says_so_for_good(tmp_path: Path) -> None:
    _, ledger = new_ledger(tmp_path)
    answers = set()
    for number in range(40):
        study = STUDY_A if number % 2 else STUDY_B
        try:
            ledger.reserve(round_of(study, number), limits(study=50.0))
        except SemcError as refusal:
            answers.add((refusal.code, refusal.line()))
    assert [code for code, _ in answers] == [ExitCode.BUDGET_REFUSED], "the same whatever was asked"
    reserves = [event for event in ledger.events() if isinstance(event, Reserve)]
    refusals = [event for event in ledger.events() if isinstance(event, Refuse)]
    assert len(reserves) + len(refusals) == 40
    assert {event.over for event in refusals} == {"total"}
    assert ledger.spent() <= 8.0 < rdp_epsilon([MECHANISM] * (len(reserves) + 1), 1e-5)
    assert ledger.refused(STUDY_A)
    assert ledger.refused(STUDY_B)


def test_a_studys_own_limit_at_its_own_delta(tmp_path: Path) -> None:
    _, ledger = new_ledger(tmp_path, total=50.0)
    strict = limits(total=50.0, study=4.0, delta=1e-7)
    fitting = next(n for n in range(100) if rdp_epsilon([MECHANISM] * (n + 1), 1e-7) > 4.0)
    for number in range(fitting):
        ledger.reserve(round_of(STUDY_A, number), strict)
    assert fitting > 0
    text = refused(ExitCode.BUDGET_REFUSED, lambda: ledger.reserve(round_of(STUDY_A, fitting), strict))
    assert "this study's limit" in text
    assert ledger.refused(STUDY_A)
    assert not ledger.refused(STUDY_B)
    ledger.reserve(round_of(STUDY_B, 1), strict)  # another study has its own


def test_the_promise_of_the_first_day_cannot_be_raised(tmp_path: Path) -> None:
    _, ledger = new_ledger(tmp_path, total=2.0)
    large = Mechanism(2.0, 0.1, 300)
    assert rdp_epsilon([large], 1e-5) > 2.0
    refused(
        ExitCode.BUDGET_REFUSED, lambda: ledger.reserve(round_of(mechanism=large), limits(total=50, study=50))
    )


def test_a_policy_can_lower_the_promise(tmp_path: Path) -> None:
    _, ledger = new_ledger(tmp_path, total=50.0)
    refused(ExitCode.BUDGET_REFUSED, lambda: ledger.reserve(round_of(), limits(total=0.5)))
    ledger.reserve(round_of(), limits())


def test_noise_below_the_policy_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    _, ledger = new_ledger(tmp_path)
    refused(
        ExitCode.POLICY_REFUSED, lambda: ledger.reserve(round_of(mechanism=Mechanism(0.4, 0.1, 1)), limits())
    )
    refused(
        ExitCode.POLICY_REFUSED, lambda: ledger.reserve(round_of(mechanism=Mechanism(2, 0.1, 1001)), limits())
    )
    assert len(ledger.events()) == 1


def test_a_study_without_protection_ends_private_ones(tmp_path: Path) -> None:
    _, ledger = new_ledger(tmp_path)
    ledger.reserve(round_of(), limits())
    for _ in range(3):
        ledger.note_unprotected(STUDY_B)
    assert len(ledger.events()) == 3, "noted once"
    refused(ExitCode.POLICY_REFUSED, lambda: ledger.reserve(round_of(number=2), limits()))
    ledger.reserve(round_of(number=2), limits(accept_unprotected=True))


def test_closed_is_closed(tmp_path: Path) -> None:
    place, ledger = new_ledger(tmp_path)
    ledger.close("the hospital has left the federation")
    refused(ExitCode.LEDGER_INVALID, lambda: ledger.reserve(round_of(), limits()))
    refused(ExitCode.LEDGER_INVALID, lambda: Ledger(place).close("again"))
    assert isinstance(ledger.events()[-1], Close)
    ledger.note_unprotected(STUDY_B)  # a fact, not a charge


def test_only_a_reservation_can_be_committed_and_once(tmp_path: Path) -> None:
    _, ledger = new_ledger(tmp_path)
    reserved = ledger.reserve(round_of(), limits())
    head = ledger.commit(reserved.seq, OUTGOING)
    assert head == ledger.head().hash != reserved.head
    assert isinstance(ledger.events()[-1], Commit)
    for seq in (reserved.seq, 1, 3, 99, 0, -1):
        refused(ExitCode.LEDGER_INVALID, lambda seq=seq: ledger.commit(seq, OUTGOING))


# Making one


def test_a_ledger_is_made_once(tmp_path: Path) -> None:
    place, _ = new_ledger(tmp_path)
    assert (place.folder.stat().st_mode & 0o777, place.database.stat().st_mode & 0o777) == (0o700, 0o600)
    assert place.anchor.stat().st_mode & 0o777 == 0o600
    refused(ExitCode.LEDGER_INVALID, lambda: new_ledger(tmp_path))
    place.anchor.rename(tmp_path / "kept")
    refused(ExitCode.LEDGER_INVALID, lambda: new_ledger(tmp_path))
    (tmp_path / "kept").rename(place.anchor)
    place.database.unlink()
    assert place.exists()
    refused(ExitCode.LEDGER_INVALID, lambda: new_ledger(tmp_path))


def test_delta_and_anchor_must_make_sense(tmp_path: Path) -> None:
    place = place_in(tmp_path)
    refused(
        ExitCode.CONFIG_INVALID,
        lambda: Ledger.create(place, site="north", patients=400, delta=1 / 400, epsilon_total=8.0),
    )
    assert not place.exists()
    refused(ExitCode.CONFIG_INVALID, lambda: LedgerPlace(tmp_path / "l", tmp_path / "l" / "state" / "anchor"))


# Corruptions: each acts on a ledger of three rounds, with copies of its folder and anchor from one round before


def rewritten(place: LedgerPlace, change: Callable[[list[str]], list[str]]) -> None:
    """Write other entries with a chain that is whole in itself, as whoever can write the file could."""
    with closing(sqlite3.connect(place.database)) as connection, connection:
        bodies = [body for (body,) in connection.execute("SELECT body FROM events ORDER BY seq")]
        connection.execute("DROP TRIGGER events_remain")
        connection.execute("DELETE FROM events")
        previous = "0" * 64
        for seq, body in enumerate(change(bodies), start=1):
            event = parse_event(body).model_copy(update={"seq": seq, "previous": previous})
            text = canonical(event)
            previous = entry_hash(previous, text)
            connection.execute("INSERT INTO events VALUES (?, ?, ?)", (seq, text, previous))
        connection.execute(ledger_store._SCHEMA[2])


def execute(*statements: str) -> Callable[[LedgerPlace], None]:
    def act(place: LedgerPlace) -> None:
        with closing(sqlite3.connect(place.database)) as connection, connection:
            connection.execute("DROP TRIGGER events_stay")
            connection.execute("DROP TRIGGER events_remain")
            for statement in statements:
                connection.execute(statement)
            connection.execute(ledger_store._SCHEMA[1])
            connection.execute(ledger_store._SCHEMA[2])

    return act


def swap(place: LedgerPlace) -> None:
    def exchanged(bodies: list[str]) -> list[str]:
        return [*bodies[:1], bodies[2], bodies[1], *bodies[3:]]

    rewritten(place, exchanged)


def replace_with_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def other_hospital(place: LedgerPlace) -> None:
    other, ledger = new_ledger(place.folder.parent / "other", site="south")
    for number in range(1, 4):
        ledger.commit(ledger.reserve(round_of(number=number), limits()).seq, OUTGOING)
    shutil.copy(other.database, place.database)


def anchor_moved(place: LedgerPlace) -> None:
    anchor = read_anchor(place.anchor)
    write_anchor(place.anchor, anchor.model_copy(update={"head": "f" * 64}))


def unknown(field: str, value: str) -> Callable[[LedgerPlace], None]:
    return execute(f"UPDATE events SET body = json_set(body, '$.{field}', '{value}') WHERE seq = 2")


CORRUPTIONS: dict[str, Callable[[LedgerPlace], object]] = {
    "an edited cell": execute(
        "UPDATE events SET body = replace(body, '\"steps\":100', '\"steps\":1') WHERE seq = 2"
    ),
    "an edited cell with its hash": lambda place: rewritten(
        place, lambda bodies: [body.replace('"steps":100', '"steps":1') for body in bodies]
    ),
    "a deleted row": execute("DELETE FROM events WHERE seq = 4"),
    "a deleted row, renumbered": lambda place: rewritten(place, lambda bodies: bodies[:3] + bodies[5:]),
    "the last row deleted": execute("DELETE FROM events WHERE seq = 7"),
    "all rows deleted": execute("DELETE FROM events"),
    "two rows swapped": swap,
    "a deleted file": lambda place: place.database.unlink(),
    "a deleted folder": lambda place: shutil.rmtree(place.folder),
    "a deleted anchor": lambda place: place.anchor.unlink(),
    "another anchor": anchor_moved,
    "a damaged anchor": lambda place: place.anchor.write_text("{}"),
    "an older copy of the ledger": lambda place: shutil.copy(
        place.folder.parent / "older" / "ledger.sqlite", place.database
    ),
    "an older copy of the anchor": lambda place: shutil.copy(
        place.folder.parent / "older" / "ledger.anchor", place.anchor
    ),
    "another hospital's ledger": other_hospital,
    "an unknown kind": unknown("kind", "gift"),
    "an unknown mechanism": unknown("mechanism", "laplace"),
    "the accountant gdp": unknown("accountant", "gdp"),
    "a later version": unknown("version", "2"),
    "an unknown field": unknown("note", "free"),
    "another table": execute("CREATE TABLE notes (text)"),
    "a trigger that forgets": execute(
        "CREATE TRIGGER quiet AFTER INSERT ON events BEGIN UPDATE events SET hash = '' WHERE seq = 1; END"
    ),
    "no database": lambda place: place.database.write_bytes(b"no database at all, but long enough" * 99),
    "an empty file": lambda place: place.database.write_bytes(b""),
    "half a file": lambda place: os.truncate(place.database, place.database.stat().st_size // 2),
    "a file others can read": lambda place: place.database.chmod(0o644),
    "a folder others can write": lambda place: place.folder.chmod(0o777),
    "an anchor others can write": lambda place: place.anchor.chmod(0o666),
    "a link instead of the file": lambda place: replace_with_link(place.database),
    "a link instead of the folder": lambda place: replace_with_link(place.folder),
    "a link instead of the anchor": lambda place: replace_with_link(place.anchor),
}


def three_rounds(folder: Path) -> tuple[LedgerPlace, Ledger]:
    place, ledger = new_ledger(folder)
    for number in range(1, 4):
        if number == 3:
            (folder / "older").mkdir(mode=0o700)
            shutil.copy(place.database, folder / "older")
            shutil.copy(place.anchor, folder / "older")
        ledger.commit(ledger.reserve(round_of(number=number), limits()).seq, OUTGOING)
    return place, ledger


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_what_is_not_as_it_was_left_is_refused(name: str, tmp_path: Path) -> None:
    place, ledger = three_rounds(tmp_path)
    Ledger(place)  # whole before
    CORRUPTIONS[name](place)
    text = refused(ExitCode.LEDGER_INVALID, lambda: Ledger(place))
    refused(ExitCode.LEDGER_INVALID, lambda: ledger.reserve(round_of(number=4), limits()))
    refused(ExitCode.LEDGER_INVALID, ledger.spent)
    refused(ExitCode.LEDGER_INVALID, lambda: new_ledger(tmp_path) if place.exists() else Ledger(place))
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    "name", ["an edited cell", "an edited cell with its hash", "a deleted row, renumbered"]
)
def test_without_chain_and_anchor_the_change_is_believed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: the same changes pass where hashes are not compared, so it is they that refuse."""
    place, ledger = three_rounds(tmp_path)
    spent = ledger.spent()
    CORRUPTIONS[name](place)
    monkeypatch.setattr(ledger_chain.Chain, "check_anchor", lambda chain, anchor: None)
    if name == "an edited cell":
        # believe whatever hash stands beside an entry
        with closing(sqlite3.connect(place.database)) as connection:
            stored = dict(connection.execute("SELECT body, hash FROM events"))
        monkeypatch.setattr(ledger_chain, "entry_hash", lambda previous, body: stored[body])
    assert Ledger(place).spent() < spent


def test_an_older_copy_of_both_is_found_by_whoever_kept_a_head(tmp_path: Path) -> None:
    place, ledger = three_rounds(tmp_path)
    seen_by_the_coordinator = ledger.head().hash
    assert Ledger(place).contains(seen_by_the_coordinator)
    shutil.copy(tmp_path / "older" / "ledger.sqlite", place.database)
    shutil.copy(tmp_path / "older" / "ledger.anchor", place.anchor)
    refused(ExitCode.LEDGER_INVALID, ledger.head)  # a program that runs remembers by itself
    assert not Ledger(place).contains(seen_by_the_coordinator)


def test_another_hospitals_ledger_and_anchor_bear_its_name(tmp_path: Path) -> None:
    place, _ = new_ledger(tmp_path, site="south")
    refused(ExitCode.LEDGER_INVALID, lambda: Ledger(place, site="north"))


def test_a_clock_that_goes_back_is_refused(tmp_path: Path) -> None:
    now = datetime(2026, 5, 1, tzinfo=UTC)
    place = place_in(tmp_path)
    Ledger.create(place, site="n", patients=400, delta=1e-5, epsilon_total=8.0, clock=lambda: now)
    Ledger(place, clock=lambda: now - timedelta(minutes=4)).reserve(round_of(), limits())
    before = Ledger(place, clock=lambda: now - timedelta(minutes=6))
    refused(ExitCode.LEDGER_INVALID, lambda: before.reserve(round_of(number=2), limits()))
    assert before.head().seq == 2


def test_a_full_disk_is_an_error_and_the_charge_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, ledger = new_ledger(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(
            os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        refused(ExitCode.DISK, lambda: ledger.reserve(round_of(), limits()))
        assert read_anchor(place.anchor).seq == 1
    assert Ledger(place).spent() > 0
    assert read_anchor(place.anchor).seq == 2, (
        "healed: exactly one entry ahead, and its anchor lies in the chain"
    )


def test_two_crashes_in_a_row_heal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second crash is of a program that had opened the ledger before the first."""
    place, first = new_ledger(tmp_path)
    second = Ledger(place)
    moves: list[int] = []
    move = ledger_store.write_anchor

    def dying(path: Path, anchor: Anchor) -> None:
        moves.append(anchor.seq)
        if moves.count(anchor.seq) == 1:
            raise KeyboardInterrupt
        move(path, anchor)

    monkeypatch.setattr(ledger_store, "write_anchor", dying)
    for ledger in (first, second):
        with pytest.raises(KeyboardInterrupt):
            ledger.reserve(round_of(), limits())
    assert Ledger(place).head().seq == 3
    assert moves == [2, 2, 3, 3]


def test_no_text_of_the_ledger_names_a_path_or_patient(tmp_path: Path) -> None:
    place, _ = three_rounds(tmp_path)
    held = place.database.read_bytes() + place.anchor.read_bytes()
    assert str(tmp_path).encode() not in held
    assert INCOMING.encode() in held


@pytest.mark.bench
def test_time_of_a_reservation_at_ten_thousand_entries(tmp_path: Path) -> None:
    place, _ = new_ledger(tmp_path)
    with closing(ledger_store._connected(place.database)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        book = ledger_store.Book(connection)
        while len(book.hashes) < 10_000:
            fields = {"seq": len(book.hashes) + 1, "at": book.created.at, "previous": book.hashes[-1]}
            cost = {"noise_multiplier": 50.0, "sampling_rate": 0.001, "steps": 1, "accountant_version": "1"}
            what = {"study_digest": STUDY_B, "round_number": 1, "incoming_sha256": INCOMING}
            body = canonical(Reserve(**fields, **cost, **what))  # type: ignore[arg-type]
            book.hashes.append(ledger_store._insert(connection, fields["seq"], fields["previous"], body))
        connection.execute("COMMIT")
    write_anchor(place.anchor, book.anchor)
    ledger = Ledger(place)
    ledger.reserve(round_of(number=1), limits())  # imports and the first analysis of a mechanism
    begun = time.perf_counter()
    ledger.reserve(round_of(number=2), limits())
    seconds = time.perf_counter() - begun
    print(f"reserve at {len(book.hashes):,} entries: {seconds:.3f} s")
    assert seconds < 2
