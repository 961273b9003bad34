"""The cross-entropy baseline."""

from __future__ import annotations

import math

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


@pytest.mark.parametrize("form", ["logit_adjusted", "fedlc"])
@pytest.mark.parametrize("absent", [0, 1, 2])
def test_a_class_the_site_lacks_gets_no_gradient_and_shifts_no_index(form: str, absent: int) -> None:
    counts = [7, 4, 9]
    counts[absent] = 0
    present = [c for c in range(3) if c != absent]
    network, data = TinyExperts(experts=1, mc=False).double(), batch(labels=[present[0], present[1]] * 2)
    target = build_objective(study(name="classification", cross_entropy=form), counts, sum(counts))
    total = target.step(network, data, 0.0).total
    total.backward()
    gradient = network.experts[0].weight.grad
    assert bool((gradient[absent] == 0).all())
    assert all(bool((gradient[c] != 0).any()) for c in present)
    assert network.experts[0].bias.grad[absent] == 0
    # Oracle: the same loss over two classes, the remaining rows in their order.
    offset = {"logit_adjusted": lambda n: math.log(n / sum(counts)), "fedlc": lambda n: -(n**-0.25)}[form]
    logits = network(data.images_BCHW).logits_BK[:, present]
    shift = torch.tensor([offset(counts[c]) for c in present], dtype=torch.float64)
    labels = torch.tensor([present.index(y) for y in data.labels_B.tolist()])
    torch.testing.assert_close(total, functional.cross_entropy(logits + shift, labels), rtol=1e-6, atol=0)


@pytest.mark.parametrize("form", ["plain", "inverse_frequency"])
def test_other_forms_push_an_absent_class_down(form: str) -> None:
    """Negative control: descent lowers the bias, that is the scores, of a class the site has never seen."""
    network, data = TinyExperts(experts=1, mc=False).double(), batch(labels=[0, 1, 1, 0])
    target = build_objective(study(name="classification", cross_entropy=form), (5, 5, 0), 10)
    target.step(network, data, 0.0).total.backward()
    assert network.experts[0].bias.grad[2] > 0
