"""Two controls that show a known bug, no arms to deploy: batch norm kept at the sites, found by type or by name.

Published federated code often keeps "the batch norms" local by looking for `bn` in a layer's name. A residual network's
shortcuts are called `downsample.1`, SEMC's own norms `norm`: such a rule leaves them in the average, statistics
included. Here every tensor of a batch norm that a rule finds stays at its site, everything else is averaged by n, with
the running statistics as training left them. The two rules differ in nothing else, so they are compared with each
other; the product's `fedbn` finds norms by type and measures statistics anew, and has no such setting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from semc.config import StudyConfig, load_site

if TYPE_CHECKING:
    from torch import Tensor, nn

    from client.training_round import SiteTrainer

Rule = Callable[[str], bool]
"""Whether a tensor of this name stays at its site."""


def by_name(network: nn.Module) -> Rule:
    """Return the rule that looks for `bn` in a tensor's name."""
    del network
    return lambda name: "bn" in name


def by_type(network: nn.Module) -> Rule:
    """Return the rule that knows every batch norm by its type."""
    from semc.parameter_exchange import batch_norm_names

    names = batch_norm_names(network, "average")
    return names.__contains__


RULES: Mapping[str, Callable[[nn.Module], Rule]] = {
    "control-bn-by-name": by_name,
    "control-bn-by-type": by_type,
}


def train_control(
    study: StudyConfig, site_files: Mapping[str, Path], folder: Path, make_rule: Callable[[nn.Module], Rule]
) -> dict[str, tuple[SiteTrainer, dict[str, Tensor]]]:
    """Train a federation in this process, in which each site keeps the tensors that a rule names.

    Args:
        study: A study with `federation.bn` average, so that every tensor of the network is at hand.
        site_files: Site name to site file.
        folder: New folder for the sites' states.
        make_rule: Makes the rule from the network.

    Returns:
        Site to its trainer and the weights it would use.
    """
    from client.training_round import SiteTrainer
    from semc.models import build_model
    from semc.protocol import NUM_EXAMPLES
    from server.aggregation.mean import weighted_mean
    from server.global_model import initial_model

    keeps = make_rule(build_model(study))
    shared = dict(initial_model(study).tensors)
    own: dict[str, dict[str, Tensor]] = {name: {} for name in sorted(site_files)}
    trainers = {
        name: SiteTrainer(
            load_site(site_files[name]).model_copy(update={"state_directory": folder / name}), study
        )
        for name in own
    }
    for number in range(1, study.federation.rounds + 1):
        updates = {
            name: trainer.run_round(number, {**shared, **own[name]}, judge_incoming=False)
            for name, trainer in trainers.items()
        }
        weights = {name: float(update.metrics[NUM_EXAMPLES]) for name, update in updates.items()}  # type: ignore[arg-type]
        for key, tensor in shared.items():
            if keeps(key):
                for name, update in updates.items():
                    own[name][key] = update.shared[key]
            else:
                rows = ((weights[name], update.shared[key]) for name, update in updates.items())
                shared[key] = weighted_mean(rows).to(tensor.dtype)
    return {name: (trainer, {**shared, **own[name]}) for name, trainer in trainers.items()}
