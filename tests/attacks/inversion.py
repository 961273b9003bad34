"""Pictures and labels out of one released update: closed forms for the heads, matching of gradients for pixels.

The attacker is a coordinator who knows the weights it sent, and the update holds the round's single patient alone: no
other patient hides it. The closed form of a fully connected layer is that of Phong et al. (2018): dL/dW_k = s_k x
and dL/db_k = s_k, so one division gives x; the sign of s_k gives the label (Zhao et al. 2020). Pixels are fitted
so that their gradient points where the released one does (Geiping et al. 2020), on the sigmoid network of Zhu et
al. (2019), which inverts well: a deep ReLU network withstands 200 steps without any
protection, and would prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from semc.privacy.patient_dp import PatientDPOptimizer, private_step
from semc.privacy.secret_noise import SecretRng

_ITERATIONS = 200


@dataclass(frozen=True)
class HeadLeak:
    """What the closed form reads out of a released update of linear classifiers."""

    label: int
    features_NC: Tensor
    """The feature vector each expert's classifier seems to have seen."""


def read_heads(weights_NKC: Tensor, biases_NK: Tensor) -> HeadLeak:
    """Read label and features out of the released gradients of N classifiers."""
    label = int(biases_NK.sum(dim=0).argmin())
    return HeadLeak(label, weights_NKC[:, label] / biases_NK[:, label, None])


def invertible_network(num_classes: int, seed: int) -> nn.Sequential:
    """Return Zhu et al.'s network for grey images of 32 pixels, all of it trained."""
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2),
        nn.Sigmoid(),
        nn.Conv2d(8, 8, 5, stride=2, padding=2),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(8 * 8 * 8, num_classes),
    )
    for parameter in network.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5, generator=generator)
    return network


def released_gradient(
    network: nn.Module, loss: Callable[[], Tensor], *, noise_multiplier: float, max_grad_norm: float
) -> list[Tensor]:
    """Return what one real private step with this single patient moves each parameter by, at learning rate 1."""
    parameters = list(network.parameters())
    before = [p.detach().clone() for p in parameters]
    optimizer = PatientDPOptimizer(
        torch.optim.SGD(parameters, lr=1.0),
        noise_multiplier=noise_multiplier,
        max_grad_norm=max_grad_norm,
        expected_patients=1.0,
        secret=SecretRng(),
    )
    private_step(optimizer, [loss])
    released = [old - p.detach() for old, p in zip(before, parameters, strict=True)]
    with torch.no_grad():
        for parameter, old in zip(parameters, before, strict=True):
            parameter.copy_(old)
    return released


def fitted_image(network: nn.Module, label: int, released: Sequence[Tensor], seed: int) -> Tensor:
    """Return the image [1, 1, 32, 32] whose gradient has the highest cosine with the released one.

    Args:
        network: With the weights the update started from.
        label: Given to the attacker, who reads it off the update where he can.
        released: Gradient of every parameter.
        seed: Of the first guess.
    """
    parameters = list(network.parameters())
    norm = _norm(released)
    generator = torch.Generator().manual_seed(seed)
    guess = (0.01 * torch.randn(1, 1, 32, 32, generator=generator)).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [guess],
        max_iter=_ITERATIONS,
        max_eval=2 * _ITERATIONS,
        history_size=50,
        tolerance_grad=1e-12,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def _distance() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(guess), torch.tensor([label]))
        gradients = torch.autograd.grad(loss, parameters, create_graph=True)
        product = torch.stack(
            [(own * theirs).sum() for own, theirs in zip(gradients, released, strict=True)]
        ).sum()
        distance = 1 - product / (_norm(gradients) * norm)
        (guess.grad,) = torch.autograd.grad(distance, [guess])
        return distance

    optimizer.step(_distance)
    return guess.detach()


def centred_cosine(first: Tensor, second: Tensor) -> float:
    """Return the cosine of two pictures after each one's mean is taken off: grey level alone is no likeness."""
    a, b = (picture.flatten() - picture.mean() for picture in (first, second))
    return float(functional.cosine_similarity(a, b, dim=0))


def structural_similarity(first_HW: NDArray[np.float64], second_HW: NDArray[np.float64]) -> float:
    """Return the mean SSIM (Wang et al. 2004) of two pictures in [0, 1], Gaussian window of 11 pixels."""

    def _mean(picture_HW: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(picture_HW, (11, 11), 1.5))

    c1, c2 = 0.01**2, 0.03**2
    mean_a, mean_b = _mean(first_HW), _mean(second_HW)
    var_a, var_b = _mean(first_HW**2) - mean_a**2, _mean(second_HW**2) - mean_b**2
    both = _mean(first_HW * second_HW) - mean_a * mean_b
    likeness = ((2 * mean_a * mean_b + c1) * (2 * both + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
    return float(likeness.mean())


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum().sqrt()
