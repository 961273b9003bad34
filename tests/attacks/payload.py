"""A training reply as a curious coordinator takes it apart: every byte that is not a trained number is a finding.

The reply is read the generous way, with the safetensors header parsed by plain JSON, so that what a strict reader
would refuse (free text, a further tensor) is still found.
"""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from flwr.app import RecordDict

from semc.protocol import ARRAYS, CONFIG, LEDGER_HEAD, SHARED_TENSORS

SECRETS = ("MUELLER^ANNA", "MRN-4711-0815", "1953-02-01", "mueller_left_scan")
"""Planted in the hospital's manifest and file names."""


def findings(
    content: RecordDict, expected: Mapping[str, tuple[int, ...]], secrets: Sequence[str] = SECRETS
) -> list[str]:
    """Return what a training reply of mode patient_dp holds beyond the trained tensors and the ledger's head.

    Args:
        content: The reply.
        expected: Shape of every tensor that may leave.
        secrets: Texts that must not be found in any common encoding.
    """
    found = [f"record {name}" for name in content if name not in (ARRAYS, CONFIG)]
    found += [f"setting {name}" for name in content.get(CONFIG, {}) if name != LEDGER_HEAD]
    arrays = content[ARRAYS]
    found += [f"array {name}" for name in arrays if name != SHARED_TENSORS]
    data = arrays[SHARED_TENSORS].data
    found += _tensor_findings(data, expected)
    everything = data + repr({name: dict(record) for name, record in content.items()}).encode()
    found += [f"secret number {place}" for place, text in enumerate(secrets) if _holds(everything, text)]
    return found


def num_bytes(content: RecordDict) -> int:
    """Return the size of a reply: all records, as Flower counts them."""
    return sum(record.count_bytes() for record in content.values())


def plant_secrets(root: Path) -> None:
    """Name every patient and every file of a phantom hospital after a real one, as a careless export would.

    Args:
        root: Folder with the manifest.
    """
    manifest = root / "manifest.csv"
    with manifest.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for number, row in enumerate(rows):
        row["group"] = f"{SECRETS[0]} {SECRETS[1]} {SECRETS[2]} {row['group']}"
        named = f"{Path(row['file']).parent}/{SECRETS[3]}_{number}.png"
        (root / row["file"]).rename(root / named)
        row["file"] = named
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _tensor_findings(data: bytes, expected: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Compare a safetensors file with the tensors that may leave."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    found = [f"header entry {name}" for name in header if name not in expected]
    found += [f"missing tensor {name}" for name in expected if name not in header]
    found += [
        f"shape of {name}"
        for name, shape in expected.items()
        if name in header and (header[name]["dtype"], tuple(header[name]["shape"])) != ("F32", shape)
    ]
    described = max(entry["data_offsets"][1] for entry in header.values() if "data_offsets" in entry)
    if len(data) != end + described:
        found.append("bytes behind the tensors")
    return found


def _holds(data: bytes, text: str) -> bool:
    """Say whether a text is in the bytes as UTF-8, UTF-16, hex or base64 at any of its three phases."""
    plain = text.encode()
    phases = [base64.b64encode(bytes(pad) + plain)[4:-4] for pad in range(3)]
    needles = [plain, text.encode("utf-16-le"), plain.hex().encode(), *phases]
    return any(needle in data or needle.lower() in data for needle in needles)
