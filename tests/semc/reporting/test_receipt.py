"""Whatever is done to signed receipts afterwards is found; each part of the protection is needed for that."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from semc.exit_codes import ExitCode, SemcError
from semc.reporting.receipt import SignedReceipt, SiteReceipt, key_fingerprint, verify_chain
from tests.semc.reporting.made_receipts import (
    DROPPED,
    IN,
    KEY,
    LATE,
    OTHER_KEY,
    chain,
    public,
    signed,
    weights,
)

CHAIN = chain(3, {2: {"south": DROPPED}, 3: {"west": LATE}})
Path = tuple[str, ...]


def refused(receipts: Sequence[SignedReceipt], **known: Any) -> SemcError | None:
    """Return what verification says, None where it accepts."""
    try:
        verify_chain(receipts, public(), **known)
    except SemcError as error:
        return error
    return None


def hashes_fit(receipts: Sequence[SignedReceipt]) -> bool:
    """The hash chain alone: what anyone can make anew."""
    previous = ["", *(receipt.sha256() for receipt in receipts)]
    return all(receipt.previous == before for receipt, before in zip(receipts, previous, strict=False))


def signatures_fit(receipts: Sequence[SignedReceipt]) -> bool:
    """Each signature alone: says nothing about which others there were."""
    try:
        for receipt in receipts:
            KEY.public_key().verify(base64.b64decode(receipt.signature), receipt.signed_bytes())
    except InvalidSignature:
        return False
    return True


def rehashed(receipts: Sequence[SignedReceipt]) -> list[SignedReceipt]:
    """Return receipts whose hashes fit again, with the signatures they have."""
    made: list[SignedReceipt] = []
    for receipt in receipts:
        made.append(receipt.model_copy(update={"previous": made[-1].sha256() if made else ""}))
    return made


def leaves(content: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the way to every value of nested dictionaries."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from leaves(value, (*path, key))
    else:
        yield path


def edited(receipt: SignedReceipt, path: Path, value: Any) -> SignedReceipt:
    """Return a receipt with one value replaced.

    Raises:
        ValidationError: Where no receipt may hold that value.
    """
    content = receipt.model_dump(mode="json")
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return SignedReceipt.model_validate(content)


def valid_edits(receipt: SignedReceipt) -> Iterator[tuple[Path, SignedReceipt]]:
    """Yield the receipt with each of its values replaced by others that it may hold."""
    others: tuple[Any, ...] = (
        "",
        "in",
        "late",
        "evaluate",
        "train",
        "join",
        "E_DATA",
        "0" * 64,
        "another-run",
        None,
        0,
        1,
        2,
        7,
        0.25,
        1.5000000000000002,
    )
    for path in leaves(receipt.model_dump(mode="json")):
        for value in others:
            try:
                other = edited(receipt, path, value)
            except ValidationError:
                continue
            if other != receipt:
                yield path, other


def test_what_was_signed_is_accepted_also_read_back_from_json() -> None:
    assert refused(CHAIN) is None
    text = json.dumps([receipt.model_dump(mode="json") for receipt in CHAIN], indent=2)
    again = [SignedReceipt.model_validate(item) for item in json.loads(text)]
    assert refused(again, study_digest="d" * 64, run=CHAIN[0].run, count=4, head=CHAIN[-1].sha256()) is None
    assert refused([]) is None


def test_the_signed_bytes_are_written_out() -> None:
    one = signed(CHAIN[0], sites={"west": LATE, "north": IN})
    fields = json.loads(one.signed_bytes())
    assert list(fields) == sorted(set(SignedReceipt.model_fields) - {"signature"})
    assert b'"seconds":1.5,"stage":"","state":"in","weight":100.0}' in one.signed_bytes()
    assert one.signed_bytes() == signed(CHAIN[0], sites={"north": IN, "west": LATE}).signed_bytes()


def test_every_value_of_every_receipt_is_covered() -> None:
    """Also where whoever edits it makes the hashes of all that follow anew."""
    covered: set[Path] = set()
    for index, receipt in enumerate(CHAIN):
        for path, other in valid_edits(receipt):
            changed = [*CHAIN[:index], other, *CHAIN[index + 1 :]]
            for attempt in (changed, rehashed(changed)):
                if attempt == CHAIN:
                    continue  # the edit was of `previous`, which hashing anew puts right
                error = refused(attempt)
                assert error is not None, (index, path)
                assert error.code is ExitCode.CHECKPOINT_INVALID
            assert f"Receipt {index + 1} (" in refused(changed).problem  # type: ignore[union-attr]
            covered.add(path)
    names = {path[-1] for path in covered}
    assert names == set(SignedReceipt.model_fields) - {"sites"} | set(SiteReceipt.model_fields)


@given(
    data=st.data(),
    rounds=st.integers(1, 5),
    absent=st.dictionaries(
        st.integers(1, 6), st.dictionaries(st.sampled_from(["north", "south", "west"]), st.just(DROPPED))
    ),
)
@settings(max_examples=60, deadline=None)
def test_any_single_change_is_found(data: st.DataObject, rounds: int, absent: dict[int, Any]) -> None:
    """Control: the same change passes where hashes or signatures are looked at alone."""
    receipts = chain(rounds, absent)
    last = len(receipts) - 1
    index = data.draw(st.integers(0, last))
    kind = data.draw(st.sampled_from(["edit", "edit and rehash", "remove", "swap", "duplicate", "truncate"]))
    changed = list(receipts)
    if kind.startswith("edit"):
        path = data.draw(st.sampled_from(list(leaves(receipts[index].model_dump(mode="json")))))
        value = data.draw(
            st.one_of(
                st.text(max_size=8),
                st.integers(0, 9),
                st.floats(0, 9),
                st.sampled_from([None, "in", "f" * 64]),
            )
        )
        try:
            other = edited(receipts[index], path, value)
        except ValidationError:
            return  # no receipt at all
        if (
            other.signed_bytes() == receipts[index].signed_bytes()
            and other.signature == receipts[index].signature
        ):
            return  # the same receipt in other words
        changed[index] = other
        if kind == "edit and rehash":
            changed = rehashed(changed)
            assert hashes_fit(changed)
            if changed == receipts:
                return
    elif kind == "remove":
        index = data.draw(st.integers(0, last - 1))
        del changed[index]
    elif kind == "swap":
        other_index = data.draw(st.integers(0, last).filter(lambda at: at != index))
        changed[index], changed[other_index] = changed[other_index], changed[index]
    elif kind == "duplicate":
        changed.insert(data.draw(st.integers(0, last + 1)), receipts[index])
    else:
        changed = changed[:index]
        assert refused(changed) is None  # a shorter chain is a chain: that is what count and head are for
        assert refused(changed, head=receipts[-1].sha256()) is not None
    if kind in ("remove", "swap", "duplicate"):
        assert signatures_fit(changed)
    error = refused(changed, count=len(receipts))
    assert error is not None
    assert error.code is ExitCode.CHECKPOINT_INVALID
    assert re.search(r"Receipt \d+ ", error.problem)


def test_who_can_hash_but_not_sign_is_found_by_the_signature_alone() -> None:
    forged = [*CHAIN]
    forged[1] = CHAIN[1].model_copy(update={"sites": dict.fromkeys(CHAIN[1].sites, IN)})
    assert not hashes_fit(forged)  # the hash chain finds a careless forger ...
    forged = rehashed(forged)
    assert hashes_fit(forged)  # ... and not one who makes it anew
    assert "Receipt 2 (round 2) was changed" in str(refused(forged))
    own = [signed(receipt, OTHER_KEY) for receipt in forged]
    own = [signed(receipt, OTHER_KEY, previous=receipt.previous) for receipt in rehashed(own)]
    verify_chain(chain(key=OTHER_KEY), public(OTHER_KEY))
    assert "Receipt 1 (round 1) was changed, or signed with another key" in str(refused(own))
    assert "Receipt 1 " in str(refused(chain(key=OTHER_KEY)))


def test_a_receipt_signed_by_the_right_key_for_something_else_is_found_by_the_chain_alone() -> None:
    other_run = chain(3, run="another-002")
    mixed = [CHAIN[0], other_run[1], *CHAIN[2:]]
    assert signatures_fit(mixed)
    assert "Receipt 2 (round 2) is of another run" in str(refused(mixed))
    other_study = [CHAIN[0], chain(3, digest="c" * 64)[1], *CHAIN[2:]]
    assert "Receipt 2 (round 2) is of another study" in str(refused(other_study))
    assert "Receipt 1 (round 1) is of another run" in str(refused(other_run, run=CHAIN[0].run))
    assert "Receipt 1 (round 1) is of another study" in str(refused(CHAIN, study_digest="c" * 64))
    earlier = chain(3)  # same run, same study, other receipts
    assert "does not follow the one before" in str(refused([*CHAIN[:2], *earlier[2:]]))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"round": 4}, "is not of round 3, which was next"),
        ({"incoming_sha256": weights(7)}, "is of weights that the round before did not make"),
        ({"sites": {"north": IN}}, "names other sites"),
        ({"kind": "evaluate"}, "is of an evaluation and names new weights"),
    ],
)
def test_a_coordinator_that_signs_nonsense_is_found(changes: dict[str, Any], problem: str) -> None:
    receipts = CHAIN[:2]
    wrong = signed(CHAIN[2], **changes)
    assert problem in str(refused([*receipts, wrong]))
    assert refused([*receipts, signed(CHAIN[2])]) is None


def test_a_round_below_its_quorum_is_followed_by_itself() -> None:
    lost = signed(CHAIN[1], outgoing_sha256="")
    again = signed(CHAIN[1], previous=lost.sha256())
    assert refused([CHAIN[0], lost, again]) is None
    assert "which was next" in str(refused([CHAIN[0], lost, signed(CHAIN[2], previous=lost.sha256())]))
    assert "is not of the first round" in str(refused([signed(CHAIN[1], previous="")]))
    after = signed(CHAIN[2], round=5, previous=CHAIN[3].sha256())
    assert "comes after the closing evaluation" in str(refused([*CHAIN, after]))


def test_other_spellings_of_the_same_signature_are_refused() -> None:
    """Base64 has spare bits before its padding; nobody may use them to make a second receipt of one."""
    receipt = CHAIN[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    spare = alphabet[alphabet.index(receipt.signature[85]) ^ 1]
    other = receipt.signature[:85] + spare + "=="
    assert base64.b64decode(other) == base64.b64decode(receipt.signature)
    assert refused([*CHAIN[:-1], receipt.model_copy(update={"signature": other})]) is not None


@pytest.mark.parametrize("text", ["", "no key", "A" * 40, public()[:-2] + "x=", public() + "\n"])
def test_a_text_that_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(SemcError) as caught:
        verify_chain(CHAIN, text)
    assert caught.value.code is ExitCode.KEY_INVALID


def test_the_fingerprint_is_that_of_the_raw_key() -> None:
    digest = hashlib.sha256(base64.b64decode(public())).digest()
    assert key_fingerprint(public()) == "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
    assert key_fingerprint(public()) != key_fingerprint(public(OTHER_KEY))


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "in", "stage": "train", "reason": "L_DEADLINE"},
        {"state": "late", "stage": "train"},
        {"state": "late", "reason": "L_DEADLINE"},
        {"state": "late", "stage": "train", "reason": "L_DEADLINE", "weight": 1.0},
        {"state": "gone", "stage": "train", "reason": "L_DEADLINE"},
        {"state": "in", "seconds": float("nan")},
        {"state": "in", "weight": float("inf")},
        {"state": "in", "attempts": -1},
        {"state": "in", "patients": 3},
    ],
)
def test_a_receipt_says_all_of_it_or_is_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SiteReceipt(**wrong)
