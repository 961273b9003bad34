"""The step of patient-level DP-SGD: sensitivity, noise, memory, and what it relies on in opacus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version

import pytest
import torch
from opacus.optimizers import optimizer as opacus_optimizer
from opacus.optimizers.optimizer import DPOptimizer
from torch import Tensor, nn
from torch.nn import functional

from semc.privacy.patient_dp import PatientDPOptimizer, private_step
from semc.privacy.secret_noise import SecretRng
from tests.semc.privacy.fixed_stream import FixedStream
from tests.semc.privacy.peak_memory import peak_memory

Loss = Callable[[], Tensor]


class Patients:
    """A linear head, and patients of 1 to 30 random frames whose gradients are longer than any C used here."""

    def __init__(self, frames: Sequence[int], seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.head = nn.Linear(6, 4)
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        self.frames = [torch.randn(count, 6, generator=generator) for count in frames]
        self.labels = [torch.randint(4, (count,), generator=generator) for count in frames]

    def losses(self, without: int | None = None) -> list[Loss]:
        return [self._loss(i) for i in range(len(self.frames)) if i != without]

    def image_losses(self, without: int | None = None) -> list[Loss]:
        """The broken twin: every frame is a microbatch of its own."""
        return [
            lambda i=i, f=f: functional.cross_entropy(
                self.head(self.frames[i][f, None]), self.labels[i][f, None]
            )
            for i in range(len(self.frames))
            if i != without
            for f in range(len(self.frames[i]))
        ]

    def _loss(self, i: int) -> Loss:
        return lambda: functional.cross_entropy(self.head(self.frames[i]), self.labels[i])


def optimizer_of(
    head: nn.Module, *, sigma: float = 0.0, clip: float = 0.1, expected: float = 1.0, seed: int = 0
) -> PatientDPOptimizer:
    """Return plain gradient descent with rate 1, so that a step subtracts the noised mean."""
    return PatientDPOptimizer(
        torch.optim.SGD(head.parameters(), lr=1.0),
        noise_multiplier=sigma,
        max_grad_norm=clip,
        expected_patients=expected,
        secret=SecretRng(FixedStream(seed)),
    )


def moved(head: nn.Module, optimizer: PatientDPOptimizer, losses: Iterable[Loss]) -> Tensor:
    """Return what one step subtracts from the weights, float64, and put the weights back."""
    before = [p.detach().clone() for p in head.parameters()]
    private_step(optimizer, losses)
    difference = torch.cat(
        [(b.double() - p.detach().double()).flatten() for b, p in zip(before, head.parameters(), strict=True)]
    )
    with torch.no_grad():
        for parameter, value in zip(head.parameters(), before, strict=True):
            parameter.copy_(value)
    return difference


@pytest.mark.parametrize("frames", [1, 2, 7, 30])
def test_a_patient_of_any_number_of_frames_moves_the_sum_by_one_clip_norm(frames: int) -> None:
    patients = Patients([3, frames, 5])
    optimizer = optimizer_of(patients.head)
    shift = moved(patients.head, optimizer, patients.losses()) - moved(
        patients.head, optimizer, patients.losses(without=1)
    )
    assert shift.norm().item() / 0.1 == pytest.approx(1.0, abs=1e-4)


def test_clipping_image_by_image_is_no_patient_level_bound() -> None:
    """The control: the same patient in microbatches of one frame moves the sum by far more."""
    patients = Patients([3, 8, 5])
    optimizer = optimizer_of(patients.head)
    shift = moved(patients.head, optimizer, patients.image_losses()) - moved(
        patients.head, optimizer, patients.image_losses(without=1)
    )
    assert shift.norm().item() / 0.1 > 2.0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_counts_as_zero(bad: float) -> None:
    patients = Patients([3, 4, 5])
    optimizer = optimizer_of(patients.head)
    expected = moved(patients.head, optimizer, patients.losses(without=1))
    patients.frames[1][0, 0] = bad
    assert torch.equal(moved(patients.head, optimizer, patients.losses()), expected)


def test_a_patient_without_a_loss_counts_as_zero() -> None:
    patients = Patients([3, 4, 5])
    optimizer = optimizer_of(patients.head)
    first, _, last = patients.losses()
    expected = moved(patients.head, optimizer, [first, last])
    assert torch.equal(moved(patients.head, optimizer, [first, lambda: None, last]), expected)
    assert moved(patients.head, optimizer, [lambda: None]).abs().max() == 0.0


def test_stock_clipping_would_release_a_nan() -> None:
    """The control: opacus' factor of a NaN is NaN."""
    head = nn.Linear(2, 1)
    stock = DPOptimizer(
        torch.optim.SGD(head.parameters(), lr=1.0), noise_multiplier=0, max_grad_norm=1, expected_batch_size=1
    )
    for parameter in head.parameters():
        parameter.grad_sample = torch.full((1, *parameter.shape), torch.nan)
    stock.step()
    assert not torch.isfinite(head.weight).all()


def test_an_empty_draw_moves_by_noise_alone() -> None:
    head = nn.Linear(6, 4)
    assert moved(head, optimizer_of(head), []).abs().max() == 0.0
    assert moved(head, optimizer_of(head, sigma=1.0), []).abs().min() > 0.0


def noise_std(expected: float, steps: int = 400) -> float:
    """Return the standard deviation of `steps` empty steps at sigma 2, C 0.5."""
    head = nn.Linear(40, 10)
    optimizer = optimizer_of(head, sigma=2.0, clip=0.5, expected=expected)
    return torch.cat([moved(head, optimizer, []) for _ in range(steps)]).std().item()


def test_noise_times_the_expected_number_is_sigma_c() -> None:
    assert noise_std(expected=12.5) * 12.5 == pytest.approx(2.0 * 0.5, rel=0.01)
    # The control: a divisor off by 5 %, for example the number drawn, is seen.
    assert noise_std(expected=12.5 * 1.05) * 12.5 != pytest.approx(2.0 * 0.5, rel=0.01)


def test_noise_is_new_in_every_step_and_secret() -> None:
    head = nn.Linear(6, 4)
    injected = optimizer_of(head, sigma=1.0, seed=7)
    first = moved(head, injected, [])
    assert not torch.equal(first, moved(head, injected, []))
    assert torch.equal(first, moved(head, optimizer_of(head, sigma=1.0, seed=7), []))
    fresh = [
        moved(
            head,
            PatientDPOptimizer(
                torch.optim.SGD(head.parameters(), lr=1.0),
                noise_multiplier=1.0,
                max_grad_norm=0.1,
                expected_patients=1.0,
                secret=SecretRng(),
            ),
            [],
        )
        for _ in range(2)
    ]
    assert not torch.equal(*fresh)


def test_a_step_that_an_error_ended_leaves_nothing_in_the_next() -> None:
    patients = Patients([3, 4, 5])
    optimizer = optimizer_of(patients.head)
    expected = moved(patients.head, optimizer, patients.losses(without=0))

    def unreadable() -> Tensor:
        raise OSError

    with pytest.raises(OSError):
        private_step(optimizer, [patients.losses()[0], unreadable])
    assert torch.equal(moved(patients.head, optimizer, patients.losses(without=0)), expected)


def test_the_sum_is_opacus_own() -> None:
    """Clipping in place gives what opacus gives for the same gradients as a batch."""
    patients = Patients([3, 1, 5, 2])
    ours = moved(patients.head, optimizer_of(patients.head, expected=4.0), patients.losses())
    stock = DPOptimizer(
        torch.optim.SGD(patients.head.parameters(), lr=1.0),
        noise_multiplier=0,
        max_grad_norm=0.1,
        expected_batch_size=4,
    )
    parameters = list(patients.head.parameters())
    gradients = [torch.autograd.grad(loss(), parameters) for loss in patients.losses()]
    before = torch.cat([p.detach().flatten() for p in parameters])
    for number, parameter in enumerate(parameters):
        parameter.grad_sample = torch.stack([gradient[number] for gradient in gradients])
    stock.step()
    theirs = before - torch.cat([p.detach().flatten() for p in parameters])
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-5, atol=1e-7)


def test_a_parameter_that_a_patient_does_not_use_counts_as_zero() -> None:
    head = nn.ModuleList([nn.Linear(3, 1), nn.Linear(3, 1)])
    step = moved(head, optimizer_of(head), [lambda: head[0](torch.ones(1, 3)).sum()])
    assert step[:4].norm() > 0
    assert step[4:].abs().max() == 0.0


def memory_in_gradients(make: Callable[[nn.Module], DPOptimizer], run: Callable[..., None]) -> float:
    """Return the peak of one step with three patients, in units of the gradient; one layer holds nearly all of it."""
    body = nn.Linear(1500, 600)
    images = [torch.randn(2, 1500) for _ in range(3)]
    optimizer = make(body)
    size = sum(p.numel() * p.element_size() for p in body.parameters())
    losses = [lambda x=x: body(x).square().mean() for x in images]
    found = peak_memory(lambda: run(optimizer, losses))
    return (found.tensors + found.python) / size


def stock_step(optimizer: DPOptimizer, losses: Sequence[Loss]) -> None:
    """The same loop as the recipe has it, on opacus' optimiser as it comes."""
    for loss in losses:
        loss().backward()
        for parameter in optimizer.params:
            parameter.grad_sample, parameter.grad = parameter.grad[None], None
        optimizer.signal_skip_step(True)
        optimizer.step()
    optimizer.signal_skip_step(False)
    for parameter in optimizer.params:
        parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def test_memory_stays_below_two_and_a_half_gradients() -> None:
    ours = memory_in_gradients(lambda body: optimizer_of(body, sigma=1.0), private_step)
    stock = memory_in_gradients(
        lambda body: DPOptimizer(
            torch.optim.SGD(body.parameters(), lr=1.0),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            expected_batch_size=1,
        ),
        stock_step,
    )
    assert ours < 2.5
    assert stock > 2.5  # the control: the measure sees spare copies


def test_opacus_is_what_we_build_on() -> None:
    """Private details of opacus; another version fails here first."""
    assert version("opacus").split(".")[0] == "1"
    tensor = torch.zeros(1)
    opacus_optimizer._mark_as_processed(tensor)
    with pytest.raises(ValueError, match="zero_grad"):
        opacus_optimizer._check_processed_flag(tensor)
    head = nn.Linear(1, 1)
    optimizer = optimizer_of(head)
    assert optimizer._step_skip_queue == []
    assert optimizer._is_last_step_skipped is False
    assert all(parameter.summed_grad is None for parameter in head.parameters())
    assert optimizer.loss_reduction == "mean"
    assert optimizer.expected_batch_size == 1.0
