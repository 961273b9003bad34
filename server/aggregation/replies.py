"""A round's replies on disk, read back one tensor at a time: memory is flat in the number of sites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from safetensors import safe_open
from torch import Tensor


class Replies:
    """Open replies; gives one tensor of every site at a time, in site-name order."""

    def __init__(self, payloads: Mapping[str, Path], stack: ExitStack) -> None:
        self._files = {
            site: stack.enter_context(safe_open(payloads[site], framework="pt")) for site in sorted(payloads)
        }

    def rows(self, name: str) -> Iterator[tuple[str, Tensor]]:
        """Yield site and tensor."""
        for site, file in self._files.items():
            yield site, file.get_tensor(name)


@contextmanager
def reading(payloads: Mapping[str, Path]) -> Iterator[Replies]:
    """Open every reply for aggregation.

    Args:
        payloads: Site to its safetensors file, already validated.
    """
    with ExitStack() as stack:
        yield Replies(payloads, stack)
