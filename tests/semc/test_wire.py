"""The wire format: what goes in comes out, and nothing but exactly that is accepted."""

import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from semc.wire import MAX_HEADER_BYTES, WireDtype, WireError, pack, unpack

SHAPES = {"b.weight": (3, 4), "a": (5,), "scalar": ()}


def _tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def _message(header: object, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _entry(shape: list[object], start: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_fp32_round_trip_is_bit_exact():
    tensors = _tensors()
    received = unpack(pack(tensors, "fp32"), SHAPES, "fp32")
    assert list(received) == list(SHAPES)
    assert all(torch.equal(received[name], tensors[name]) for name in SHAPES)


def test_bf16_round_trip_equals_torchs_rounding():
    tensors = _tensors()
    received = unpack(pack(tensors, "bf16"), SHAPES, "bf16")
    for name in SHAPES:
        assert received[name].dtype == torch.float32
        assert torch.equal(received[name], tensors[name].bfloat16().float())
    assert pack(received, "bf16") == pack(tensors, "bf16")


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_safetensors_library_reads_what_we_write_and_the_reverse(dtype: WireDtype):
    tensors = _tensors()
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    theirs = load(pack(tensors, dtype))
    assert theirs.keys() == SHAPES.keys()
    assert all(
        theirs[name].dtype == kind and torch.equal(theirs[name], tensors[name].to(kind)) for name in SHAPES
    )
    ours = unpack(save({name: tensor.to(kind) for name, tensor in tensors.items()}), SHAPES, dtype)
    assert all(torch.equal(ours[name], tensors[name].to(kind).float()) for name in SHAPES)


def test_equal_tensors_give_equal_bytes_in_any_order():
    tensors = _tensors()
    assert pack(tensors, "fp32") == pack(dict(reversed(tensors.items())), "fp32")


def test_views_and_other_dtypes_are_packed_by_value():
    base = torch.arange(12, dtype=torch.float64).reshape(3, 4)
    received = unpack(pack({"x": base.t()}, "fp32"), {"x": (4, 3)}, "fp32")
    assert torch.equal(received["x"], base.t().float())


def test_received_tensors_do_not_share_memory_with_the_message():
    data = pack(_tensors(), "fp32")
    received = unpack(data, SHAPES, "fp32")
    before = bytes(data)
    for tensor in received.values():
        tensor.zero_()
    assert data == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_neither_leave_nor_enter(value: float):
    tensor = torch.tensor([1.0, value])
    with pytest.raises(WireError, match="finite"):
        pack({"x": tensor}, "fp32")
    for dtype in ("fp32", "bf16"):
        kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
        with pytest.raises(WireError, match="finite"):
            unpack(save({"x": tensor.to(kind)}), {"x": (2,)}, dtype)


@pytest.mark.parametrize(
    "tensor", [torch.zeros(0), torch.ones(2, dtype=torch.int64), torch.ones(1, dtype=torch.bool)]
)
def test_counters_and_empty_tensors_are_not_sent(tensor: torch.Tensor):
    with pytest.raises(WireError, match="floating-point"):
        pack({"x": tensor}, "fp32")


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 300), at=st.integers(0, 10**6), value=st.sampled_from(["nan", "inf", "-inf"]))
def test_one_such_number_is_found_at_any_place(size: int, at: int, value: str):
    tensor = torch.randn(size, generator=torch.Generator().manual_seed(size))
    assert pack({"x": tensor}, "fp32")
    tensor[at % size] = float(value)
    for dtype in ("fp32", "bf16"):
        with pytest.raises(WireError, match="finite"):
            pack({"x": tensor}, dtype)


def test_metadata_is_refused_although_the_library_takes_it():
    """A free-text channel through which anything could leave a hospital."""
    tensors = {"x": torch.ones(2)}
    assert unpack(save(tensors), {"x": (2,)}, "fp32")["x"].tolist() == [1, 1]
    smuggled = save(tensors, metadata={"note": "patient 17"})
    assert load(smuggled)["x"].tolist() == [1, 1]
    with pytest.raises(WireError, match="metadata"):
        unpack(smuggled, {"x": (2,)}, "fp32")


def test_a_repeated_key_is_refused():
    entry = '"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    with pytest.raises(WireError, match="repeats"):
        unpack(_message(f"{{{entry},{entry}}}".encode(), bytes(8)), {"x": (2,)}, "fp32")


GOOD = {"x": _entry([2], 0, 8)}
BAD_HEADERS = {
    "names": ({"y": _entry([2], 0, 8)}, 8, "1 missing, 1 unknown"),
    "one more": ({**GOOD, "y": _entry([1], 8, 12)}, 12, "0 missing, 1 unknown"),
    "shape": ({"x": _entry([1, 2], 0, 8)}, 8, "shape"),
    "shape of floats": ({"x": _entry([2.0], 0, 8)}, 8, "shape"),
    "dtype": ({"x": _entry([2], 0, 8, "I32")}, 8, "dtype"),
    "half the precision": ({"x": _entry([2], 0, 4, "BF16")}, 4, "dtype"),
    "span too short": ({"x": _entry([2], 0, 4)}, 4, "offsets"),
    "negative": ({"x": _entry([2], -8, 0)}, 0, "offsets"),
    "booleans": ({"x": {**_entry([2], 0, 8), "data_offsets": [False, 8]}}, 8, "offsets"),
    "hole": ({"x": _entry([2], 4, 12)}, 12, "holes"),
    "no dtype": ({"x": {"shape": [2], "data_offsets": [0, 8]}}, 8, "described"),
    "extra field": ({"x": {**_entry([2], 0, 8), "note": "17"}}, 8, "described"),
    "list": ([GOOD], 8, "object"),
    "not JSON": (b"{x", 8, "JSON"),
    "not UTF-8": (b"\xff\xfe", 8, "JSON"),
    "deep": (b"[" * 200_000, 8, "JSON"),
    "trailing bytes": (GOOD, 9, "bytes"),
    "cut short": (GOOD, 7, "bytes"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_every_lie_is_refused(case: str):
    header, length, words = BAD_HEADERS[case]
    assert unpack(_message(GOOD, bytes(8)), {"x": (2,)}, "fp32")["x"].tolist() == [0, 0]
    with pytest.raises(WireError, match=words):
        unpack(_message(header, bytes(length)), {"x": (2,)}, "fp32")


def test_overlapping_tensors_are_refused():
    header = {"x": _entry([2], 0, 8), "y": _entry([2], 4, 12)}
    with pytest.raises(WireError, match="overlaps"):
        unpack(_message(header, bytes(12)), {"x": (2,), "y": (2,)}, "fp32")


@pytest.mark.parametrize(
    "data", [b"", b"1234567", struct.pack("<Q", 2**63), struct.pack("<Q", MAX_HEADER_BYTES + 1)]
)
def test_absurd_lengths_are_refused_before_reading(data: bytes):
    with pytest.raises(WireError, match=r"shorter|limit"):
        unpack(data, {"x": (2,)}, "fp32")


def test_a_header_longer_than_the_message_is_refused():
    with pytest.raises(WireError, match="inside its header"):
        unpack(struct.pack("<Q", 100) + b"{}", {"x": (2,)}, "fp32")


def test_a_small_message_cannot_order_a_large_allocation():
    """What a numpy file does: 200 bytes that claim 32 GiB. Here the length is compared first."""
    huge = 2**33
    with pytest.raises(WireError, match="bytes"):
        unpack(_message({"x": _entry([huge], 0, 4 * huge)}, b""), {"x": (huge,)}, "fp32")


def test_too_many_tensors_for_the_header_are_not_packed():
    with pytest.raises(WireError, match="header"):
        pack({f"{'n' * 200}{i}": torch.ones(1) for i in range(5000)}, "fp32")


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 10**6), value=st.integers(0, 255))
def test_one_changed_byte_never_crashes_the_reader(position: int, value: int):
    data = bytearray(pack(_tensors(), "fp32"))
    data[position % len(data)] = value
    try:
        received = unpack(bytes(data), SHAPES, "fp32")
    except WireError:
        return
    assert {name: tuple(tensor.shape) for name, tensor in received.items()} == SHAPES
