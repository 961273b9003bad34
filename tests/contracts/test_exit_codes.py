"""Every exit code stands in EXIT_CODES.md, and nothing else does; errors survive a process border."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

from semc.exit_codes import ExitCode, SemcError

PAGE = Path(__file__).parents[2] / "EXIT_CODES.md"


def test_the_page_lists_exactly_the_codes() -> None:
    rows = re.findall(
        r"^\| (\d+) \| `([A-Z_]+)` \| .+ \| .+ \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [(int(number), name) for number, name in rows] == [(int(code), code.name) for code in ExitCode]


def test_an_error_is_one_line_and_survives_pickling() -> None:
    error = SemcError(ExitCode.SPLIT_EMPTY, "The test split is empty.", "add patients")
    again = pickle.loads(pickle.dumps(error))
    assert again.line() == error.line() == "error 23 SPLIT_EMPTY: The test split is empty. Fix: add patients"
    assert again.code is ExitCode.SPLIT_EMPTY


def test_a_child_programs_status_becomes_a_listed_code() -> None:
    assert ExitCode.of_process(50) is ExitCode.QUORUM_LOST
    assert ExitCode.of_process(-15) is ExitCode.of_process(7) is ExitCode.RUN_FAILED
