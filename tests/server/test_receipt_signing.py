"""The key that signs receipts: made once, whole, for its owner only; what it signs is verified without it."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from semc.exit_codes import ExitCode, SemcError
from semc.reporting.receipt import SignedReceipt, verify_chain
from server.home import RECEIPTS_KEY, Home
from server.receipt_signing import ReceiptSigner
from server.receipts import Reason, SiteState
from tests.semc.reporting.made_receipts import IN, LATE


def sign(signer: ReceiptSigner, before: list[SignedReceipt], number: int = 1) -> SignedReceipt:
    return signer.sign(
        study_digest="d" * 64,
        run="tiny-001",
        round_number=number,
        kind="train",
        sites={"west": LATE, "north": IN},
        incoming_sha256=f"{number}" * 64,
        outgoing_sha256=f"{number + 1}" * 64,
        before=before,
    )


def load_in_another_process(key_file: Path) -> str:
    return ReceiptSigner.load_or_make(key_file).public_key


def test_what_it_signs_is_a_chain_for_its_key_and_no_other(tmp_path: Path) -> None:
    signer = ReceiptSigner.load_or_make(tmp_path / RECEIPTS_KEY)
    receipts: list[SignedReceipt] = []
    for number in (1, 2, 3):
        receipts.append(sign(signer, receipts, number))
    verify_chain(receipts, signer.public_key, study_digest="d" * 64, run="tiny-001", count=3)
    other = ReceiptSigner.load_or_make(tmp_path / "elsewhere" / RECEIPTS_KEY)
    with pytest.raises(SemcError, match=r"Receipt 1 \(round 1\) was changed, or signed with another key"):
        verify_chain(receipts, other.public_key)


def test_the_servers_own_words_are_signed_as_text(tmp_path: Path) -> None:
    late = LATE.model_validate({**LATE.model_dump(), "state": SiteState.LATE, "reason": Reason.DEADLINE})
    signer = ReceiptSigner.load_or_make(tmp_path / RECEIPTS_KEY)
    receipt = sign(signer, []).model_copy(update={"sites": {"west": late, "north": IN}})
    assert receipt.signed_bytes() == sign(signer, []).signed_bytes()


def test_the_key_is_made_once_for_its_owner_and_found_again(tmp_path: Path) -> None:
    key_file = Home(tmp_path / "coordinator").receipts_key
    first = ReceiptSigner.load_or_make(key_file)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert [path.name for path in key_file.parent.iterdir()] == [RECEIPTS_KEY]
    text = key_file.read_bytes()
    assert ReceiptSigner.load_or_make(key_file).public_key == first.public_key
    assert ReceiptSigner.load(key_file).public_key == first.public_key
    assert key_file.read_bytes() == text
    assert sign(first, []) == sign(ReceiptSigner.load(key_file), [])


def test_of_processes_that_make_it_at_once_all_use_one(tmp_path: Path) -> None:
    key_file = tmp_path / RECEIPTS_KEY
    context = get_context("fork")
    with ThreadPoolExecutor(2) as threads, context.Pool(4) as processes:
        here = threads.submit(load_in_another_process, key_file)
        there = processes.map(load_in_another_process, [key_file] * 8)
        keys = {here.result(), *there}
    assert keys == {ReceiptSigner.load(key_file).public_key}
    assert [path.name for path in tmp_path.iterdir()] == [RECEIPTS_KEY]


def test_who_comes_second_takes_the_key_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes saw no key; the other one's was there before ours."""
    first = ReceiptSigner.load_or_make(tmp_path / RECEIPTS_KEY)
    monkeypatch.setattr("server.receipt_signing.os.path.lexists", lambda _: False)
    assert ReceiptSigner.load_or_make(tmp_path / RECEIPTS_KEY).public_key == first.public_key
    assert [path.name for path in tmp_path.iterdir()] == [RECEIPTS_KEY]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_not_used(tmp_path: Path, mode: int) -> None:
    key_file = tmp_path / RECEIPTS_KEY
    ReceiptSigner.load_or_make(key_file)
    key_file.chmod(mode)
    error = refused(key_file)
    assert f"can be read by others (mode {mode:04o})" in error.problem
    assert error.fix == f"chmod 600 {RECEIPTS_KEY}"
    key_file.chmod(0o600)
    ReceiptSigner.load_or_make(key_file)


@pytest.mark.parametrize("content", [b"", b"no key", b"half", b"ec", b"passphrase"])
def test_a_damaged_key_is_told_and_never_replaced(tmp_path: Path, content: bytes) -> None:
    key_file = tmp_path / RECEIPTS_KEY
    ReceiptSigner.load_or_make(key_file)
    if content == b"half":
        content = key_file.read_bytes()[:60]
    elif content == b"ec":
        private = ec.generate_private_key(ec.SECP256R1())
        content = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    elif content == b"passphrase":
        private = ec.generate_private_key(ec.SECP256R1())
        content = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    key_file.write_bytes(content)
    assert "restore receipts.key from a backup" in refused(key_file).fix
    assert key_file.read_bytes() == content


def test_without_a_key_there_is_nothing_to_load(tmp_path: Path) -> None:
    with pytest.raises(SemcError) as caught:
        ReceiptSigner.load(tmp_path / RECEIPTS_KEY)
    assert caught.value.code is ExitCode.KEY_INVALID
    assert not (tmp_path / RECEIPTS_KEY).exists()
    (tmp_path / RECEIPTS_KEY).symlink_to(tmp_path / "gone")
    assert "cannot be read" in refused(tmp_path / RECEIPTS_KEY).problem


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SemcError) as caught:
        ReceiptSigner.load_or_make(tmp_path / "file" / RECEIPTS_KEY)
    assert caught.value.code is ExitCode.DISK


def refused(key_file: Path) -> SemcError:
    with pytest.raises(SemcError) as caught:
        ReceiptSigner.load_or_make(key_file)
    assert caught.value.code is ExitCode.KEY_INVALID
    return caught.value
