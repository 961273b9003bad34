"""Tensors <-> bytes for the network: a safetensors file, its header checked before anything is loaded.

The bytes come from a stranger. The safetensors library refuses false shapes, holes, overlaps and trailing
bytes, but accepts duplicate keys, a free-text `__metadata__`, empty tensors, other dtypes and NaN;
`numpy.load` allocates what a 200-byte header asks for, and pickle runs code. So this reader takes exactly
what the study's network has: the same names, the same shapes, one dtype, every number finite, and not one
byte more.

Nothing is copied twice: packing joins views of the tensors, reading copies each tensor out of the message
once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

WireDtype = Literal["fp32", "bf16"]

MAX_HEADER_BYTES: Final = 1 << 20
"""Largest header read, bytes; SEMC's 700 tensors need about 90 kB."""

_LENGTH_BYTES: Final = 8
_ALIGNMENT: Final = 8
_TORCH: Final[dict[WireDtype, torch.dtype]] = {"fp32": torch.float32, "bf16": torch.bfloat16}
_NAMES: Final[dict[WireDtype, str]] = {"fp32": "F32", "bf16": "BF16"}
ITEM_BYTES: Final[dict[WireDtype, int]] = {"fp32": 4, "bf16": 2}
"""Bytes of one number."""


class WireError(ValueError):
    """Tensors that cannot be sent, or bytes that are not exactly the expected tensors."""


def pack(tensors: Mapping[str, Tensor], dtype: WireDtype) -> bytes:
    """Write tensors as a safetensors file without metadata.

    Args:
        tensors: Floating-point tensors by name, on any device.
        dtype: Precision on the wire; bf16 rounds to nearest even.

    Returns:
        The file, tensors in the order of their names, so equal tensors give equal bytes.

    Raises:
        WireError: A tensor is not floating-point, is empty, or is not finite (a training that diverged), or the
            header is larger than a reader accepts.
    """
    header: dict[str, dict[str, Any]] = {}
    chunks: list[memoryview] = []
    end = 0
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        if not tensor.is_floating_point() or tensor.numel() == 0:
            raise WireError(f"tensor '{name}' is empty or not floating-point")
        sent = tensor.to(device="cpu", dtype=_TORCH[dtype]).contiguous()
        if not _finite(sent):
            raise WireError(f"tensor '{name}' holds numbers that are not finite")
        start, end = end, end + sent.numel() * ITEM_BYTES[dtype]
        header[name] = {"dtype": _NAMES[dtype], "shape": list(sent.shape), "data_offsets": [start, end]}
        chunks.append(sent.reshape(-1).view(torch.uint8).numpy().data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > MAX_HEADER_BYTES:
        raise WireError("too many tensors: the header is above its limit")
    return b"".join((len(text).to_bytes(_LENGTH_BYTES, "little"), text, *chunks))


def unpack(data: bytes, expected: Mapping[str, tuple[int, ...]], dtype: WireDtype) -> dict[str, Tensor]:
    """Read a safetensors file that must hold exactly the expected tensors.

    Args:
        data: The file, from an untrusted sender.
        expected: Shape of every tensor by name; see :func:`semc.parameter_exchange.shared_shapes`.
        dtype: Precision the study fixes; another one is refused.

    Returns:
        The tensors in float32 on the CPU, in the order of `expected`, sharing no memory with `data`.

    Raises:
        WireError: Anything differs from what is expected; raised before a tensor is allocated, except for numbers
            that are not finite.
    """
    start, header = _read_header(data)
    if header.keys() != expected.keys():
        missing, unknown = len(expected.keys() - header.keys()), len(header.keys() - expected.keys())
        raise WireError(f"tensor names differ: {missing} missing, {unknown} unknown")
    spans = {name: _span(name, header[name], shape, dtype) for name, shape in expected.items()}
    end = 0
    for begin, stop in sorted(spans.values()):
        if begin != end:
            raise WireError("tensor data has holes or overlaps")
        end = stop
    if len(data) != start + end:
        raise WireError(f"the message has {len(data)} bytes, its header describes {start + end}")
    return {name: _read(data, start + spans[name][0], name, shape, dtype) for name, shape in expected.items()}


def _read_header(data: bytes) -> tuple[int, dict[str, Any]]:
    """Return where the tensor data begins, and the parsed header."""
    if len(data) < _LENGTH_BYTES:
        raise WireError("the message is shorter than a header length")
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise WireError(f"the header claims {length} bytes, above the limit of {MAX_HEADER_BYTES}")
    start = _LENGTH_BYTES + length
    if len(data) < start:
        raise WireError("the message ends inside its header")
    try:
        header = json.loads(data[_LENGTH_BYTES:start].decode("utf-8"), object_pairs_hook=_unique)
    except WireError:
        raise
    except (ValueError, RecursionError) as error:
        raise WireError("the header is not valid JSON") from error
    if not isinstance(header, dict):
        raise WireError("the header is not a JSON object")
    if "__metadata__" in header:
        raise WireError("the header carries metadata")
    return start, header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object, refusing a key given twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise WireError("the header repeats a key")
    return found


def _span(name: str, entry: object, shape: tuple[int, ...], dtype: WireDtype) -> tuple[int, int]:
    """Return a tensor's byte range in the data after comparing its entry with what is expected."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise WireError(f"tensor '{name}' is not described by dtype, shape and data_offsets")
    if entry["dtype"] != _NAMES[dtype]:
        raise WireError(f"tensor '{name}' does not have the study's dtype {_NAMES[dtype]}")
    if _integers(entry["shape"]) != list(shape) or math.prod(shape) == 0:
        raise WireError(f"tensor '{name}' does not have the expected shape {list(shape)}")
    offsets = _integers(entry["data_offsets"])
    if (
        offsets is None
        or len(offsets) != 2
        or offsets[1] - offsets[0] != math.prod(shape) * ITEM_BYTES[dtype]
    ):
        raise WireError(f"tensor '{name}' has offsets that do not fit its shape")
    return offsets[0], offsets[1]


def _integers(values: object) -> list[int] | None:
    """Return a list of non-negative integers, or None where it is anything else (true, 1.0, -1 included)."""
    if isinstance(values, list) and all(type(value) is int and value >= 0 for value in values):
        return values
    return None


def _finite(tensor: Tensor) -> bool:
    """Say whether every number is finite; NaN passes through both extremes, and one pass does it."""
    low, high = torch.aminmax(tensor)
    return math.isfinite(low.item()) and math.isfinite(high.item())


def _read(data: bytes, offset: int, name: str, shape: tuple[int, ...], dtype: WireDtype) -> Tensor:
    """Copy one tensor out of the message and check that it is finite."""
    count = math.prod(shape)
    if dtype == "fp32":
        numbers = np.frombuffer(data, dtype="<f4", count=count, offset=offset).astype(np.float32)
    else:
        # A bfloat16 is the upper half of a float32.
        halves = np.frombuffer(data, dtype="<u2", count=count, offset=offset).astype(np.uint32)
        numbers = np.left_shift(halves, 16, out=halves).view(np.float32)
    tensor = torch.from_numpy(numbers).reshape(shape)
    if not _finite(tensor):
        raise WireError(f"tensor '{name}' holds numbers that are not finite")
    return tensor
