"""The one Flower release this software works with; its private modules differ between releases."""

from __future__ import annotations

from importlib.metadata import version

from semc.exit_codes import ExitCode, SemcError
from semc.protocol import FLOWER_VERSION


def check_flower_version() -> None:
    """Refuse another Flower than the one this software was written and tested for.

    Raises:
        SemcError: VERSION_MISMATCH.
    """
    installed = version("flwr")
    if installed != FLOWER_VERSION:
        raise SemcError(
            ExitCode.VERSION_MISMATCH,
            f"Flower {installed} is installed, this software needs {FLOWER_VERSION}.",
            f"pip install flwr=={FLOWER_VERSION}",
        )
