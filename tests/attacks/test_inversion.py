"""What a coordinator can read out of the update of a round with one patient, with the protection and without."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from semc.config import StudyConfig
from semc.datasets.transforms import normalisation_of, to_tensor
from tests.attacks.audit_row import AuditRow, Control
from tests.attacks.inversion import (
    centred_cosine,
    fitted_image,
    invertible_network,
    read_heads,
    released_gradient,
    structural_similarity,
)
from tests.attacks.private_site import (
    CLASSES,
    Patient,
    audited_study,
    network_of,
    phantom_patients,
    pool_of,
    trainer_of,
    without_protection,
)

Audit = Callable[[AuditRow], None]


# One noisy step at sigma 2 is (1.99, 1e-5)-private, which lets a single patient's label be guessed a little better
# than by chance, 1/6; over 1200 rounds it was 0.24.
_MOST_LABELS = 0.35


@pytest.mark.parametrize("num_patients", [300, pytest.param(1000, marks=pytest.mark.audit)])
def test_neither_label_nor_features_leave_with_the_heads(num_patients: int, audit: Audit) -> None:
    patients = phantom_patients(num_patients, frames=1, seed=8)
    study = audited_study({"privacy.noise_multiplier": 2.0})
    private = _read_all(study, patients)
    bare = _read_all(without_protection(study), patients[:100])
    setting = f"{num_patients} rounds with one patient of one frame, heads, sigma 2"
    audit(
        AuditRow(
            "label from the sign of the last bias (share right; chance 0.17)",
            setting,
            private[0],
            _MOST_LABELS,
            (Control("neither clipping nor noise, 100 rounds", bare[0], 1.0),),
        )
    )
    audit(
        AuditRow(
            "feature vector from the classifier's gradient (mean cosine)",
            setting,
            private[1],
            0.15,
            (Control("neither clipping nor noise, 100 rounds", bare[1], 0.95),),
        )
    )


@pytest.mark.parametrize("num_images", [2, pytest.param(10, marks=pytest.mark.audit)])
def test_pixels_cannot_be_fitted_to_the_update(num_images: int, audit: Audit) -> None:
    private, clipped, bare = [], [], []
    for number, patient in enumerate(phantom_patients(num_images, frames=1, seed=9)):
        private.append(_fit(patient, number, noise_multiplier=0.5, max_grad_norm=1.0))
        clipped.append(_fit(patient, number, noise_multiplier=0.0, max_grad_norm=1.0))
        bare.append(_fit(patient, number, noise_multiplier=0.0, max_grad_norm=1e9))
    setting = (
        f"{num_images} rounds with one patient of one frame, all weights of a sigmoid network, sigma 0.5"
    )
    for place, (name, most) in enumerate((("cosine", 0.15), ("SSIM", 0.2))):
        means = [float(np.mean([leak[place] for leak in leaks])) for leaks in (private, clipped, bare)]
        audit(
            AuditRow(
                f"pixels by 200 steps of gradient matching (mean {name})",
                setting,
                means[0],
                most,
                (
                    Control("neither clipping nor noise", means[2], 0.95 if name == "cosine" else 0.8),
                    Control("clipping alone", means[1], 0.95 if name == "cosine" else 0.8),
                ),
                {"highest": float(np.max([leak[place] for leak in private]))},
            )
        )


def test_likeness_is_one_for_the_same_picture_and_none_for_noise() -> None:
    rng = np.random.default_rng(0)
    picture = phantom_patients(1, frames=1, seed=9)[0].images[0] / 255
    assert structural_similarity(picture, picture) == pytest.approx(1)
    assert structural_similarity(picture, rng.random((32, 32))) < 0.1
    tensor = torch.from_numpy(picture)
    assert centred_cosine(tensor, 2 * tensor + 1) == pytest.approx(1)
    assert abs(centred_cosine(tensor, torch.from_numpy(rng.random((32, 32))))) < 0.1


def _read_all(study: StudyConfig, patients: list[Patient]) -> tuple[float, float]:
    """Return the share of labels read right, and the mean cosine of the features read, a round per patient."""
    network = network_of(study)
    rate = study.training.learning_rate
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    right, cosines = 0, []
    trainer = trainer_of(study, network, public_patients=1)
    for patient in patients:
        network.load_state_dict(start)
        trainer.train(pool_of(study, [patient]), global_step=0, total_steps=1)
        heads = list(network.classifiers.named_parameters())
        moved = {name: (start[f"classifiers.{name}"] - p.detach()) / rate for name, p in heads}
        weights_NKC = torch.stack([tensor for name, tensor in moved.items() if name.endswith("weight")])
        biases_NK = torch.stack([tensor for name, tensor in moved.items() if name.endswith("bias")])
        leak = read_heads(weights_NKC, biases_NK)
        with torch.no_grad():
            network.eval()
            images_BCHW = to_tensor(list(patient.images), normalisation_of(study.data, study.model.weights))
            seen_NC = network.pooled(images_BCHW).pooled_NBC[:, 0]
        right += leak.label == patient.labels[0]
        cosines += functional.cosine_similarity(leak.features_NC, seen_NC, dim=1).tolist()
    return right / len(patients), float(np.mean(cosines))


def _fit(
    patient: Patient, number: int, *, noise_multiplier: float, max_grad_norm: float
) -> tuple[float, float]:
    """Return centred cosine and SSIM of the picture fitted to one released update."""
    network = invertible_network(len(CLASSES), seed=number)
    picture_HW = patient.images[0] / 255
    image_BCHW = torch.from_numpy((picture_HW - 0.5) / 0.25).float()[None, None]
    labels_B = torch.tensor([patient.labels[0]])
    released = released_gradient(
        network,
        lambda: functional.cross_entropy(network(image_BCHW), labels_B),
        noise_multiplier=noise_multiplier,
        max_grad_norm=max_grad_norm,
    )
    fitted_BCHW = fitted_image(network, patient.labels[0], released, seed=number)
    fitted_HW = (fitted_BCHW[0, 0].double().numpy() * 0.25 + 0.5).clip(0, 1)
    return centred_cosine(fitted_BCHW, image_BCHW), structural_similarity(fitted_HW, picture_HW)
