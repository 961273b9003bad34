"""Every file of ours that a page for readers names is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "EXIT_CODES.md", "CHANGELOG.md")
_OURS = re.compile(r"(semc|client|server|simulation|tests|docker)/[\w./-]*|[A-Z_]+\.md")


def named_paths(text: str) -> Iterator[str]:
    """Yield the paths of ours in inline code and in links; blocks such as the file map are left out."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    targets = (target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose))
    for words in (*re.findall(r"`([^`\n]+)`", prose), *targets):
        for word in words.split():
            if _OURS.fullmatch(path := word.rstrip(".,;:")):
                yield path


def test_paths_are_found_in_code_and_links_and_nowhere_else() -> None:
    text = (
        "`semc/wire.py` and [page](SECURITY.md#keys), `pytest tests/semc`, `site.yaml`, <https://a/semc/x>\n"
        "```\nsemc/absent.py\n```\n`client/absent.py`"
    )
    assert sorted(named_paths(text)) == ["SECURITY.md", "client/absent.py", "semc/wire.py", "tests/semc"]


@pytest.mark.parametrize("page", PAGES)
def test_every_named_file_exists(page: str) -> None:
    paths = set(named_paths((ROOT / page).read_text(encoding="utf-8")))
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []
