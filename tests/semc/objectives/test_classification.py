"""The cross-entropy baseline."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from semc.exit_codes import ExitCode, SemcError
from semc.objectives import ClassificationObjective, build_objective
from tests.semc.objectives.tiny_network import TinyExperts, batch, study


def test_plain_cross_entropy_without_state() -> None:
    target = build_objective(study(name="classification", cross_entropy="plain"), (3, 4, 5), 12)
    assert isinstance(target, ClassificationObjective)
    network, data = TinyExperts(experts=1, mc=False).double(), batch()
    target.new_global_weights(network)
    terms = target.step(network, data, 0.3)
    expected = functional.cross_entropy(network(data.images_BCHW).logits_BK, data.labels_B)
    torch.testing.assert_close(terms.total, expected)
    assert terms.terms == {"ce": pytest.approx(expected.item())}
    assert terms.expert_use_N == (1.0,)
    target.after_step(network)
    assert target.state_dict() == {}
    target.load_state_dict({})
    with pytest.raises(SemcError) as refused:
        target.load_state_dict({"queue.ids": torch.zeros(1)})
    assert refused.value.code is ExitCode.CHECKPOINT_INVALID


def test_the_studys_form_of_cross_entropy_is_used() -> None:
    network, data = TinyExperts(experts=1, mc=False).double(), batch(labels=[0, 1, 1, 0])
    logits = network(data.images_BCHW).logits_BK.detach()
    masked = build_objective(study(name="classification", cross_entropy="logit_adjusted"), (5, 5, 0), 10)
    torch.testing.assert_close(
        masked.step(network, data, 0.0).total, functional.cross_entropy(logits[:, :2], data.labels_B)
    )
    weighted = build_objective(study(name="classification", cross_entropy="inverse_frequency"), (8, 2, 1), 11)
    torch.testing.assert_close(
        weighted.step(network, data, 0.0).total,
        functional.cross_entropy(logits, data.labels_B, weight=torch.tensor([1 / 8, 1 / 2, 1.0]).double()),
    )
