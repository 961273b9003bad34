"""Networks: SEMCNet and its plain ResNet baseline, built from a study alone."""

from __future__ import annotations

from pathlib import Path

from semc.config import StudyConfig
from semc.models.group_norms import replace_batch_norms
from semc.models.output import PooledFeatures, SEMCOutput
from semc.models.resnet import PlainResNet
from semc.models.semc_net import SEMCNet
from semc.models.trainable import train_only
from semc.models.weights import load_weights
from semc.seed import seeded_init

__all__ = ["PlainResNet", "PooledFeatures", "SEMCNet", "SEMCOutput", "build_model"]


def build_model(study: StudyConfig, weights_directory: Path | None = None) -> SEMCNet | PlainResNet:
    """Build the network a study describes, in training mode, with initial weights drawn from `study.seed`.

    Under `privacy.mode: patient_dp` only what the study trains requires gradients.

    The same study gives bit-equal weights at every site; the caller's random state is left as it was. Under
    ``torch.device("meta")`` no memory is taken, for counting.

    Args:
        study: The study.
        weights_directory: Folder of the weight files a study may name; None = the folder in the environment
            variable SEMC_WEIGHTS_DIRECTORY, which is how a coordinator and a simulation give it.

    Raises:
        SemcError: WEIGHTS_INVALID, pretrained weights are missing, of another hash or of another shape.
    """
    weights = load_weights(study.model, weights_directory)
    with seeded_init(study.seed):
        network = PlainResNet(study) if study.objective.name == "classification" else SEMCNet(study)
        if weights is not None:
            network.load_pretrained(weights, experts=study.model.expert_init == "pretrained")
    if study.model.norm == "group":
        replace_batch_norms(network)
    if study.privacy.private:
        assert isinstance(network, SEMCNet)  # the config refuses every other objective
        train_only(network, study.privacy.trainable)
    return network
