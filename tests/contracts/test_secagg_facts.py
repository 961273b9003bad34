"""Why Flower's SecAgg+ is not offered as a privacy control: the facts of the installed version, one test each.

SECURITY.md ("Secure aggregation: not offered") rests on these. A test that fails here after a change of Flower is good
news: the fact may be mended, and the decision is to be looked at again. Nothing here recovers a masked vector; shown
are the size of the seed space, its determinism, and what the arithmetic does to values.
"""

from __future__ import annotations

import inspect
import warnings
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common import Code, FitRes, Status, bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.quantization import dequantize, quantize
from flwr.common.secure_aggregation.secaggplus_constants import (
    RECORD_KEY_CONFIGS,
    RECORD_KEY_STATE,
    Key,
    Stage,
)
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.compat.common.recorddict_compat import fitres_to_recorddict
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.supercore.primitives.asymmetric import generate_key_pairs

from semc.protocol import FLOWER_VERSION
from tests.server.federation import set_identity

AGAIN = "Flower's SecAgg+ changed here: read SECURITY.md, 'Secure aggregation: not offered', and decide again"
MODULUS = 2**32
SITE: Any = import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
"""By name: the package exports a function of the same name."""


def _folded(seed: bytes) -> int:
    """XOR a seed's words of 32 bits, as the mask generator does."""
    return int(np.bitwise_xor.reduce(np.frombuffer(seed, dtype="<u4")))


def _mask(seed: bytes) -> list[int]:
    return [int(value) for value in pseudo_rand_gen(seed, MODULUS, [(6,)])[0]]


def test_the_facts_are_of_the_pinned_version() -> None:
    assert version("flwr") == FLOWER_VERSION == "1.41.0", AGAIN


def test_a_mask_is_a_function_of_32_bits_whatever_the_length_of_its_key() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        key = generator.bytes(32)
        short = _folded(key).to_bytes(4, "little")
        assert _mask(key) == _mask(short), AGAIN
    assert _mask(bytes(4)) != _mask(b"\x01\0\0\0"), "control: the seed matters"


def test_masks_come_from_numpys_mersenne_twister() -> None:
    """A generator for simulations: seeded with 32 bits, and no cryptographic one."""
    plain = np.random.RandomState(_folded(b"0123" * 8)).randint(0, MODULUS - 1, (6,), dtype=np.int64)
    assert _mask(b"0123" * 8) == plain.tolist(), AGAIN


def test_pairwise_masks_have_28_bits() -> None:
    """Their key is base64 text: the top bit of each of its bytes, so of each byte of the folded seed, is 0."""
    seeds = []
    for _ in range(200):
        (mine, _), (_, theirs) = generate_key_pairs(), generate_key_pairs()
        key = generate_shared_key(mine, theirs)
        assert (len(key), len(key) % 4) == (44, 0), AGAIN
        seeds.append(_folded(key))
    assert all(seed & 0x80808080 == 0 for seed in seeds), AGAIN
    assert max(seeds).bit_length() <= 31
    uniform = [_folded(np.random.default_rng(n).bytes(32)) for n in range(200)]
    assert any(seed & 0x80808080 for seed in uniform), "control: raw keys would use all 32 bits"


@pytest.mark.parametrize("value", [12.0, 300.0, -9.5])
def test_a_parameter_above_the_clipping_range_comes_out_as_another_number(value: float) -> None:
    """8.0 by default, on parameters, not on updates: a batch-norm variance of 300 comes out as 8."""
    bound = float(inspect.signature(SecAggPlusWorkflow).parameters["clipping_range"].default)
    assert bound == 8.0, AGAIN
    sent = quantize([np.array([value], dtype=np.float64)], bound, 2**22)
    back = dequantize(sent, bound, 2**22)[0][0]
    assert back == pytest.approx(np.sign(value) * bound, abs=1e-5), AGAIN
    assert dequantize(quantize([np.array([0.5])], bound, 2**22), bound, 2**22)[0][0] == pytest.approx(
        0.5, abs=1e-5
    )


@pytest.mark.parametrize(("ratio", "expected"), [(1.0, 1.56e-6), (0.1, 1.56e-5), (0.04, 3.9e-5)])
def test_quantisation_costs_an_absolute_error_that_grows_as_the_weight_falls(
    ratio: float, expected: float
) -> None:
    """Root mean square for one site of weight `ratio` x max_weight: a step of 2^-18, rounded up or down by chance."""
    values = np.random.default_rng(1).normal(0, 0.05, 20_000)
    np.random.seed(3)  # the stochastic rounding follows numpy's global seed, as an experiment's seed does
    back = dequantize(quantize([values * ratio], 8.0, 2**22), 8.0, 2**22)[0] / ratio
    assert float(np.sqrt(np.mean((back - values) ** 2))) == pytest.approx(expected, rel=0.05), AGAIN


def test_a_number_that_is_not_finite_is_masked_like_any_other() -> None:
    """The sum is then wrong everywhere, and no one can say whose it was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        sent = quantize([np.array([np.nan, np.inf])], 8.0, 2**22)[0]
    assert np.issubdtype(sent.dtype, np.integer), AGAIN


def _state(**changes: Any) -> Any:
    """Return the state of a site without neighbours."""
    settings = {
        "nid": 1,
        "threshold": 1,
        "clipping_range": 8.0,
        "target_range": 2**22,
        "mod_range": MODULUS,
        "max_weight": 1000.0,
        "rd_seed": bytes(range(32)),
    }
    return SITE.SecAggPlusState(**{**settings, **changes})


def _upload(values: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Return what that site uploads."""
    configs = ConfigRecord({Key.CIPHERTEXT_LIST: [], Key.SOURCE_LIST: []})
    sent = SITE._collect_masked_vectors(_state(), configs, 1000, ndarrays_to_parameters([values]))
    return [bytes_to_ndarray(data) for data in sent[Key.MASKED_PARAMETERS]]


def test_a_masked_upload_is_twice_as_large() -> None:
    values = np.zeros(10_000, dtype=np.float32)
    weight, masked = _upload(values)
    assert masked.dtype == np.int64, AGAIN
    assert masked.nbytes == 2 * values.nbytes
    assert weight.shape == (1,)


def test_a_site_gives_both_shares_of_one_node_where_the_lists_overlap() -> None:
    """Both together undo that node's masks; the protocol forbids it, the site does not check."""
    state = _state(rd_seed_share_dict={2: b"seed"}, sk1_share_dict={2: b"key"})
    configs = ConfigRecord({Key.ACTIVE_NODE_ID_LIST: [2], Key.DEAD_NODE_ID_LIST: [2]})
    assert SITE._unmask(state, configs)[Key.SHARE_LIST] == [b"seed", b"key"], AGAIN


def test_public_keys_are_not_signed() -> None:
    """The server forwards them; nothing binds one to a hospital, so only an honest server keeps sites private."""
    source = inspect.getsource(SITE._share_keys)
    assert "bytes_to_public_key(pk2)" in source
    assert not any(word in source for word in ("verify", "signature", "certificate")), AGAIN


def test_only_the_legacy_strategies_can_use_it() -> None:
    """Its workflow wants a LegacyContext, the message API of this software has none; nor a mod on the site's side."""
    import flwr.clientapp.mod as mods

    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    with pytest.raises(TypeError, match="LegacyContext"):
        SecAggPlusWorkflow(3, 2)(None, context)  # type: ignore[arg-type]
    assert not [name for name in dir(mods) if "secagg" in name.lower()], AGAIN


def test_the_number_of_images_and_metrics_travel_in_the_clear() -> None:
    """Beside the masked vector: what patient_dp does not send at all."""
    set_identity()
    told = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([np.zeros(3)]), 412, {"loss": 0.25})

    def train(message: Message, context: Context) -> Message:
        return Message(fitres_to_recorddict(told, keep_input=False), reply_to=message)

    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    state = _state(current_stage=Stage.SHARE_KEYS)
    context.state.config_records[RECORD_KEY_STATE] = ConfigRecord(state.to_dict())
    configs = ConfigRecord(
        {Key.STAGE: Stage.COLLECT_MASKED_VECTORS, Key.CIPHERTEXT_LIST: [], Key.SOURCE_LIST: []}
    )
    message = Message(RecordDict({RECORD_KEY_CONFIGS: configs}), 1, "train")
    message.metadata.__dict__["_message_id"] = "m"
    content = SITE.secaggplus_mod(message, context, train).content
    assert content["fitres.num_examples"] == MetricRecord({"num_examples": 412}), AGAIN
    assert content["fitres.metrics"] == ConfigRecord({"loss": 0.25}), AGAIN
