"""Evaluation counts every image once and changes nothing."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from semc.datasets import Batch
from semc.metrics import Confusion
from semc.models import build_model
from semc.training import evaluate
from tests.semc.training.tiny import (
    CLASSES,
    TinyNetwork,
    objective_of,
    same,
    tiny_batches,
    tiny_study,
    weights_of,
)

CPU = torch.device("cpu")


def test_counts_and_loss_equal_a_loop_over_single_images():
    network = TinyNetwork()
    batches = [*tiny_batches(2), *tiny_batches(1, seed=9, size=1)]
    found = evaluate(network, batches, CLASSES, CPU)
    matrix = [[0] * CLASSES for _ in range(CLASSES)]
    losses = []
    network.eval()
    for batch in batches:
        for image, label in zip(batch.images_BCHW, batch.labels_B, strict=True):
            logits_BK = network(image[None]).logits_BK.detach()
            matrix[int(label)][int(logits_BK.argmax())] += 1
            losses.append(float(functional.cross_entropy(logits_BK, label[None])))
    assert found.confusion.counts.tolist() == matrix
    assert found.confusion.num_examples == 13
    assert found.loss == pytest.approx(sum(losses) / 13, rel=1e-5)


def test_nothing_changes_not_even_the_mode():
    study = tiny_study(objective__name="semc")
    network, objective = build_model(study), objective_of(study)
    network.train()
    before, queue = weights_of(network), objective.state_dict()
    generator = torch.get_rng_state()
    first = evaluate(network, tiny_batches(3), CLASSES, CPU)
    second = evaluate(network, tiny_batches(3), CLASSES, CPU)
    assert first == second
    assert network.training
    assert same(weights_of(network), before)
    assert same(objective.state_dict(), queue)
    assert torch.equal(torch.get_rng_state(), generator)


def test_what_was_trained_before_does_not_change_the_score():
    """A score is a function of the weights alone, whatever step the process trained last."""
    network = build_model(tiny_study(objective__name="semc"))
    network.set_progress(0.1)
    first = evaluate(network, tiny_batches(2), CLASSES, CPU)
    network.set_progress(0.9)
    assert evaluate(network, tiny_batches(2), CLASSES, CPU) == first


def test_the_mode_is_restored_after_an_error():
    network = TinyNetwork().train()
    bad = Batch(torch.zeros(1, 5, 8, 8), torch.zeros(1, dtype=torch.int64), torch.zeros(1), torch.zeros(1))
    with pytest.raises(RuntimeError):
        evaluate(network, [bad], CLASSES, CPU)
    assert network.training


def test_a_split_without_images_has_no_loss():
    found = evaluate(TinyNetwork(), [], CLASSES, CPU)
    assert (found.confusion.num_examples, found.loss) == (0, None)
    assert found.probabilities_BK.shape == (0, CLASSES)


def test_probabilities_are_the_softmax_of_every_image_in_row_order():
    network = TinyNetwork()
    batches = [*tiny_batches(2), *tiny_batches(1, seed=9, size=1)]
    found = evaluate(network, batches, CLASSES, CPU)
    network.eval()
    rows = [
        torch.exp(logits_K) / torch.exp(logits_K).sum()
        for batch in batches
        for image in batch.images_BCHW
        for logits_K in network(image[None]).logits_BK.detach()
    ]
    assert found.probabilities_BK.dtype == np.float32
    np.testing.assert_allclose(found.probabilities_BK, torch.stack(rows).numpy(), atol=1e-6)
    labels = [int(label) for batch in batches for label in batch.labels_B]
    predicted = found.probabilities_BK.argmax(axis=1).tolist()
    assert Confusion.from_predictions(labels, predicted, CLASSES) == found.confusion


def test_no_text_shows_probabilities():
    assert "probabilities" not in repr(evaluate(TinyNetwork(), tiny_batches(1), CLASSES, CPU))
