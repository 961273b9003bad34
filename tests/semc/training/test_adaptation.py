"""Adapted statistics against slow oracles; nothing else changes; drift grows with the scanner's difference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from semc.config import SiteDataConfig, StudyConfig, parse_study
from semc.datasets import (
    Batch,
    ManifestRow,
    SiteImages,
    adaptation_batches,
    build_site_data,
    evaluation_batches,
    patient_halves,
    spread_over_patients,
    training_batches,
)
from semc.datasets.phantom import PhantomConfig, write_phantom
from semc.models import SEMCNet, build_model
from semc.objectives import build_objective
from semc.training import (
    NormStatistics,
    Trainer,
    adapt_statistics,
    blend_statistics,
    evaluate,
    predicted_counts,
    set_statistics,
    statistics_of,
)
from tests.semc.training.tiny import TinyNetwork, same, tiny_batches, weights_of

CPU = torch.device("cpu")
STATISTICS = ("running_mean", "running_var")
STUDY = """
name: adapted
data: {classes: [head, abdomen, femur], image_size: 32, augmentation: none}
model: {backbone: tiny, experts: 2, samc_expansion: 1, embedding_dim: 8}
training: {batch_size: 4, local_steps: 2}
federation: {sites: [one, two], rounds: 1, bn: average}
"""


def network(seed: int = 0) -> TinyNetwork:
    """Return a tiny network in evaluation mode whose statistics are of other images."""
    net = TinyNetwork(seed)
    net.norm.running_mean = torch.tensor([0.3, -0.2, 0.1, 0.9])
    net.norm.running_var = torch.tensor([0.5, 2.0, 1.0, 0.2])
    net.norm.num_batches_tracked = torch.tensor(17)
    return net.eval()


def maps(net: TinyNetwork, batch: Batch) -> Tensor:
    """Return what the batch norm sees, [C, values]."""
    with torch.no_grad():
        return net.conv(batch.images_BCHW).transpose(0, 1).flatten(1)


def of(batches: list[Batch], net: TinyNetwork) -> NormStatistics:
    """Oracle: mean over batches of their means and unbiased variances."""
    seen = [maps(net, batch) for batch in batches]
    return NormStatistics(
        torch.stack([values.mean(1) for values in seen]).mean(0),
        torch.stack([values.var(1) for values in seen]).mean(0),
    )


def test_one_pass_is_torchs_cumulative_average() -> None:
    net, oracle = network(), network()
    report = adapt_statistics(net, [tiny_batches(3)], CPU)
    oracle.norm.momentum = None
    oracle.norm.reset_running_stats()
    oracle.norm.train()
    for batch in tiny_batches(3):
        oracle(batch.images_BCHW)
    assert torch.equal(net.norm.running_mean, oracle.norm.running_mean)  # type: ignore[arg-type]
    assert torch.equal(net.norm.running_var, oracle.norm.running_var)  # type: ignore[arg-type]
    assert (report.num_images, report.passes, report.prior_count, report.reference) == (18, 1, 0.0, "none")
    assert (report.layers, report.mean_drift, report.largest) == ((), None, None)


def test_passes_count_alike_and_their_images_once() -> None:
    net = network()
    passes = [list(tiny_batches(2, seed)) for seed in (1, 2, 3)]
    report = adapt_statistics(net, passes, CPU)
    expected = of([batch for batches in passes for batch in batches], network())
    torch.testing.assert_close(net.norm.running_mean, expected.mean_C)
    torch.testing.assert_close(net.norm.running_var, expected.variance_C)
    assert (report.num_images, report.passes) == (12, 3)


@pytest.mark.parametrize("prior_count", [1.0, 32.0, 500.0])
def test_the_blend_with_a_prior_equals_a_hand_computed_one(prior_count: float) -> None:
    net = network()
    prior = statistics_of(net)
    report = adapt_statistics(net, [tiny_batches(3)], CPU, prior=prior, prior_count=prior_count)
    own, n = of(list(tiny_batches(3)), network()), 18
    drift = 0.0
    for channel in range(4):
        m0, v0 = prior["norm"].mean_C[channel].item(), prior["norm"].variance_C[channel].item()
        m1, v1 = own.mean_C[channel].item(), own.variance_C[channel].item()
        mean = (prior_count * m0 + n * m1) / (prior_count + n)
        variance = (prior_count * (v0 + (m0 - mean) ** 2) + n * (v1 + (m1 - mean) ** 2)) / (prior_count + n)
        assert net.norm.running_mean[channel].item() == pytest.approx(mean, rel=1e-5)  # type: ignore[index]
        assert net.norm.running_var[channel].item() == pytest.approx(variance, rel=1e-5)  # type: ignore[index]
        drift += abs(m1 - m0) / (v0 + 1e-5) ** 0.5 / 4
    assert report.reference == "prior"
    assert [(entry.layer, pytest.approx(entry.drift, rel=1e-5)) for entry in report.layers] == [
        ("norm", drift)
    ]
    assert report.mean_drift == report.largest.drift == report.layers[0].drift  # type: ignore[union-attr]


def test_blending_two_halves_is_pooling_their_values() -> None:
    """Negative control: without the between-means term the pooled variance would be too small."""
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(5, 40, generator=generator, dtype=torch.float64)
    b = 3 + 2 * torch.randn(5, 90, generator=generator, dtype=torch.float64)
    first, second = (NormStatistics(x.mean(1), x.var(1, unbiased=False)) for x in (a, b))
    both, pooled = torch.cat([a, b], dim=1), blend_statistics(first, second, 40, 90)
    torch.testing.assert_close(pooled.mean_C, both.mean(1))
    torch.testing.assert_close(pooled.variance_C, both.var(1, unbiased=False))
    assert bool(((40 * first.variance_C + 90 * second.variance_C) / 130 < both.var(1, unbiased=False)).all())
    for alone, counts in ((first, (40, 0)), (second, (0, 90))):
        kept = blend_statistics(first, second, *counts)
        torch.testing.assert_close(kept.mean_C, alone.mean_C)
        torch.testing.assert_close(kept.variance_C, alone.variance_C)


def test_nothing_but_running_statistics_changes() -> None:
    study = parse_study(STUDY)
    net = build_model(study).train()
    net.gate.eval()  # type: ignore[union-attr]
    before, modes = weights_of(net), {name: module.training for name, module in net.named_modules()}
    torch.manual_seed(4)
    random_state = torch.get_rng_state()
    adapt_statistics(net, [tiny_batches(3), tiny_batches(3, seed=1)], CPU, prior=statistics_of(net))
    assert torch.equal(torch.get_rng_state(), random_state), "no random number was drawn"
    after = weights_of(net)
    assert after.keys() == before.keys()
    for name in before:
        changed = not torch.equal(after[name], before[name])
        assert changed == name.endswith(STATISTICS), name
    assert {name: module.training for name, module in net.named_modules()} == modes
    assert all(m.momentum == 0.1 for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("samc_bn", ["shared", "per_expert"])
def test_it_is_deterministic_whatever_the_statistics_before(samc_bn: str) -> None:
    study = parse_study(STUDY, {"model.samc_bn": samc_bn})
    results = []
    for disturbance in (0.0, 5.0):
        net = build_model(study)
        assert isinstance(net, SEMCNet)
        set_statistics(
            net,
            {
                name: NormStatistics(entry.mean_C + disturbance, entry.variance_C + disturbance)
                for name, entry in statistics_of(net).items()
            },
        )
        torch.manual_seed(int(disturbance))
        adapt_statistics(net, [tiny_batches(3), tiny_batches(3, seed=1)], CPU)
        results.append(weights_of(net))
    assert same(*results)


def test_a_failing_image_leaves_the_network_as_it_was() -> None:
    net = network()
    before = weights_of(net)
    lonely = Batch(*(part[:1] for part in vars(next(tiny_batches(1))).values()))
    for passes in ([[*tiny_batches(1), lonely]], [[]], []):
        with pytest.raises(ValueError):
            adapt_statistics(net, passes, CPU)
        assert same(weights_of(net), before)
        assert net.norm.momentum == 0.1
    with pytest.raises(ValueError, match="another network"):
        adapt_statistics(net, [tiny_batches(1)], CPU, prior={"stranger": statistics_of(net)["norm"]})


def test_predictions_are_counted_by_class() -> None:
    net = network()
    batches = list(tiny_batches(4))
    with torch.no_grad():
        answers = [int(k) for batch in batches for k in net(batch.images_BCHW).logits_BK.argmax(1)]
    assert predicted_counts(net, batches, 3, CPU) == tuple(answers.count(k) for k in range(3))


class Scanner:
    """Images of two centres whose scanners differ by a severity."""

    def __init__(self, folder: Path, study: StudyConfig, severity: float, size: int = 32) -> None:
        config = PhantomConfig(
            seed=5,
            classes=("head", "abdomen", "femur"),
            centre_names=("one", "two"),
            patients_per_centre=24,
            test_patients_per_centre=20,
            frames_per_patient=4,
            image_size=size,
            severity=severity,
            class_prior=None,
        )
        write_phantom(config, folder)
        site = SiteDataConfig(root=folder)
        self.images = SiteImages(study.data, site)
        data = build_site_data(site, study.data, 4)
        self.rows, self.test = data.train, data.test

    def of(self, centre: str) -> list[ManifestRow]:
        return spread_over_patients([row for row in self.rows if row.centre == centre], 64, seed=0)

    def passes(self, rows: list[ManifestRow], seed: int = 0, count: int = 2) -> list[list[Batch]]:
        stream = range(seed, seed + count)
        return [list(adaptation_batches(rows, self.images, seed=k)) for k in stream]


def distance(one: dict[str, NormStatistics], other: dict[str, NormStatistics]) -> float:
    return sum((one[name].mean_C - other[name].mean_C).abs().sum().item() for name in one)


def test_adaptation_moves_towards_the_site_and_drift_grows_with_the_scanner(tmp_path: Path) -> None:
    study = parse_study(STUDY)
    net = build_model(study)
    drifts = []
    for severity in (0.0, 0.2, 0.3):
        scanner = Scanner(tmp_path / str(severity), study, severity)
        first = patient_halves(scanner.of("one"))
        halves = tuple(scanner.passes(rows, count=1)[0] for rows in first)
        alone = adapt_statistics(net, scanner.passes(scanner.of("one")), CPU, halves=halves)  # type: ignore[arg-type]
        assert alone.reference == "halves"
        federation = statistics_of(net)
        report = adapt_statistics(net, scanner.passes(scanner.of("two"), seed=9), CPU, prior=federation)
        blended = statistics_of(net)
        adapt_statistics(net, scanner.passes(scanner.of("two")), CPU)
        own = statistics_of(net)
        if severity > 0:
            assert distance(blended, own) < 0.5 * distance(federation, own)
            assert report.mean_drift > 1.5 * alone.mean_drift, "a scanner differs more than its patients"  # type: ignore[operator]
        drifts.append(report.mean_drift)
    assert drifts[0] < 0.06, "one scanner for all: only the patients differ"  # type: ignore[operator]
    assert drifts == sorted(drifts)  # type: ignore[type-var]
    assert drifts[2] > 2 * drifts[0]  # type: ignore[operator]


def test_adaptation_mends_what_another_scanner_breaks(tmp_path: Path) -> None:
    """A network trained at centre one, judged on new patients of centre two; statistics from 64 images of others."""
    study = parse_study(
        STUDY, {"data.image_size": 48, "training.learning_rate": 0.05, "training.local_steps": 300}
    )
    scanner = Scanner(tmp_path, study, severity=0.3, size=48)
    net = build_model(study)
    own = [row for row in scanner.rows if row.centre == "one"]
    trainer = Trainer(study, net, build_objective(study, [30] * 3, len(own)), CPU)
    torch.manual_seed(0)
    batches = training_batches(own, scanner.images, batch_size=16, num_steps=300, seed=1)
    trainer.train(batches, global_step=0, total_steps=300)

    def accuracy(centre: str) -> float:
        rows = [row for row in scanner.test if row.centre == centre]
        images = evaluation_batches(rows, scanner.images)
        found = evaluate(net, images, 3, CPU).confusion.accuracy
        assert found is not None
        return found

    home, before, federation = accuracy("one"), accuracy("two"), statistics_of(net)
    reached = {}
    for count in (16, 64):
        set_statistics(net, federation)
        rows = scanner.of("two")[:count]
        adapt_statistics(net, scanner.passes(rows, count=3), CPU, prior=federation)
        reached[count] = accuracy("two")
    print(f"accuracy at home {home:.3f}, at the other scanner {before:.3f}, adapted {reached}")
    assert home > 0.95
    assert before < 0.85
    assert reached[16] > before
    assert reached[64] > before + 0.1
