"""Networks: SEMCNet and its plain ResNet baseline, built from a study alone."""

from __future__ import annotations

from pathlib import Path

from semc.config import StudyConfig
from semc.models.output import SEMCOutput
from semc.models.resnet import PlainResNet
from semc.models.semc_net import SEMCNet
from semc.models.weights import load_weights
from semc.seed import seeded_init

__all__ = ["PlainResNet", "SEMCNet", "SEMCOutput", "build_model"]


def build_model(study: StudyConfig, weights_directory: Path | None = None) -> SEMCNet | PlainResNet:
    """Build the network a study describes, in training mode, with initial weights drawn from `study.seed`.

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
        network = SEMCNet(study) if study.objective.name == "semc" else PlainResNet(study)
        if weights is not None:
            network.load_pretrained(weights, experts=study.model.expert_init == "pretrained")
    return network
