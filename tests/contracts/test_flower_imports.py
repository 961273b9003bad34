"""Flower's private modules are imported by two files only; everywhere else its four public packages."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("semc", "client", "server", "simulation")
ADAPTERS = {Path("client/executor.py"), Path("server/superlink.py")}
PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.simulation"}


def imported_modules(source: str) -> Iterator[str]:
    """Yield every flwr module a source text imports, also by name through importlib."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            if node.module == "flwr":
                yield from (f"flwr.{alias.name}" for alias in node.names)
            else:
                yield node.module
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from (str(word.value) for word in node.args if isinstance(word, ast.Constant))


def strangers(source: str) -> set[str]:
    """Return the flwr modules a source text may not import."""
    flower = {name for name in imported_modules(source) if name == "flwr" or name.startswith("flwr.")}
    return {name for name in flower if name not in PUBLIC}


def test_only_the_adapters_reach_into_flower() -> None:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    found = {
        str(path.relative_to(ROOT)): names
        for path in files
        if path.relative_to(ROOT) not in ADAPTERS and (names := strangers(path.read_text(encoding="utf-8")))
    }
    assert len(files) > 20
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "import flwr",
        "import flwr.common.constant",
        "from flwr.supercore import log",
        "from flwr import common",
        "def f():\n    from flwr.common import serde",
        "import importlib\nimportlib.import_module('flwr.supernode.cli')",
    ],
)
def test_the_search_finds_each_way_in(source: str) -> None:
    assert strangers(source)


def test_the_search_leaves_public_packages_alone() -> None:
    assert not strangers("from flwr.app import Message\nfrom flwr import simulation\nimport flwr.clientapp")
