"""Pictures whose pixels are equal, whatever file they lie in: PNG written twice, grey stored as RGB, other metadata.

Every picture is decoded once, which is why only a source that hospitals are made of is looked at in this way.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from semc.datasets.sample import SourceRow
from semc.datasets.stills import read_still
from semc.exit_codes import SemcError


def identical_pictures(rows: Sequence[SourceRow]) -> list[list[SourceRow]]:
    """Return the sets of two or more rows whose pictures are equal in size and every pixel, in row order.

    A file that cannot be decoded is compared byte by byte: the site that gets it refuses it, with its row.
    """
    by_content: dict[str, list[SourceRow]] = defaultdict(list)
    for row in rows:
        by_content[_fingerprint(row)].append(row)
    return sorted((same for same in by_content.values() if len(same) > 1), key=lambda same: same[0].index)


def _fingerprint(row: SourceRow) -> str:
    try:
        pixels = read_still(row.path, row.frame, row.index)
    except SemcError:
        return f"file {hashlib.sha256(row.path.read_bytes()).hexdigest()}"
    return f"pixels {pixels.shape} {hashlib.sha256(pixels.tobytes()).hexdigest()}"
