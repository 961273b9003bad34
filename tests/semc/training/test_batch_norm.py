"""Re-estimated batch-norm statistics equal the mean over batches, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from semc.datasets import Batch
from semc.training import reestimate_statistics

CPU = torch.device("cpu")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    net.train()
    for _ in range(5):
        net(torch.randn(8, 3, 6, 6) * 7 + 5)  # statistics of other images
    return net.eval()


def batch(images_BCHW: Tensor) -> Batch:
    ids_B = torch.arange(len(images_BCHW))
    return Batch(images_BCHW=images_BCHW, labels_B=ids_B * 0, ids_B=ids_B, groups_B=ids_B)


def statistics(net: nn.Sequential) -> tuple[Tensor, Tensor]:
    norm = net[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def test_statistics_are_the_mean_over_batches() -> None:
    net = network()
    batches = [batch(torch.randn(n, 3, 6, 6)) for n in (4, 4, 4)]
    with torch.no_grad():
        maps = [net[0](entry.images_BCHW) for entry in batches]
    assert reestimate_statistics(net, batches, CPU) == 12
    mean, variance = statistics(net)
    torch.testing.assert_close(mean, torch.stack([m.mean(dim=(0, 2, 3)) for m in maps]).mean(0))
    torch.testing.assert_close(
        variance, torch.stack([m.transpose(0, 1).flatten(1).var(1) for m in maps]).mean(0)
    )


def test_nothing_but_statistics_changes() -> None:
    net = network()
    weights = {name: parameter.clone() for name, parameter in net.named_parameters()}
    before = statistics(net)[0].clone()
    reestimate_statistics(net, [batch(torch.randn(4, 3, 6, 6))], CPU)
    assert not torch.equal(statistics(net)[0], before)
    assert all(torch.equal(parameter, weights[name]) for name, parameter in net.named_parameters())
    assert not net.training
    assert net[1].momentum == 0.1
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("batches", [[], [batch(torch.randn(1, 3, 6, 6))]])
def test_without_enough_images_the_old_statistics_stay(batches: list[Batch]) -> None:
    net = network()
    before = [value.clone() for value in statistics(net)]
    with pytest.raises(ValueError, match="batch"):
        reestimate_statistics(net, batches, CPU)
    assert all(torch.equal(new, old) for new, old in zip(statistics(net), before, strict=True))
