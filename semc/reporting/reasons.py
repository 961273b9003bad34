"""Why a hospital is not part of a round, in words where its code alone would not be understood."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from semc.protocol import RefusalCode

LEDGER_WENT_BACK: Final = "R_LEDGER"
"""The coordinator's code for a ledger head that was already given for another round."""

_WORDS: Final[Mapping[str, str]] = {
    RefusalCode.DATA_CHANGED: "its images are not those of its last round",
    RefusalCode.BUDGET: "its privacy budget does not allow the round",
    RefusalCode.LEDGER: "its privacy ledger cannot be trusted",
    RefusalCode.POLICY: "its policy does not allow the study",
    LEDGER_WENT_BACK: "its privacy ledger went back",
}


def in_words(code: str) -> str:
    """Return `CODE: words`, or the code alone where it needs none."""
    return f"{code}: {_WORDS[code]}" if code in _WORDS else code
