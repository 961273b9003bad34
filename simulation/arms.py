"""Arms: named ways to train one study, told as study settings laid over it.

An arm's name is one word or several joined by `+`: `silo+logit-adjustment` is the study under `silo` with a
logit-adjusted cross-entropy. `local` and `pooled` are the two yardsticks every federation is judged by; the words after
them change their loss or network like any other arm's. Words are laid over the study from left to right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from semc.config import StudyConfig, parse_study
from semc.exit_codes import ExitCode, SemcError
from simulation.bn_control import RULES

ArmKind = Literal["federated", "local", "pooled", "control"]

_FEDERATIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "fedavg": {"federation.algorithm": "fedavg", "federation.bn": "average"},
    "fedprox": {
        "federation.algorithm": "fedprox",
        "federation.proximal_mu": 1e-2,
        "federation.bn": "average",
    },
    "fedavgm": {
        "federation.algorithm": "fedavgm",
        "federation.bn": "average",
        "federation.server_momentum": 0.6,
    },
    "fedadam": {
        "federation.algorithm": "fedadam",
        "federation.bn": "average",
        "federation.server_learning_rate": 3e-3,
    },
    "silo": {"federation.bn": "silo"},
    "fedbn": {"federation.bn": "fedbn"},
    "average": {"federation.bn": "average"},
}
"""The published algorithms average batch norm too; `fedprox+silo` is the same rule with local statistics."""

_VARIATIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "ce": {"objective.cross_entropy": "plain"},
    "weighted-ce": {"objective.cross_entropy": "inverse_frequency"},
    "logit-adjustment": {"objective.cross_entropy": "logit_adjusted"},
    "fedlc": {"objective.cross_entropy": "fedlc"},
    "weight-n": {"federation.weight": "n"},
    "weight-sqrt": {"federation.weight": "sqrt_n"},
    "weight-uniform": {"federation.weight": "uniform"},
    "queue-keep": {"objective.queue_on_update": "keep"},
    "queue-clear": {"objective.queue_on_update": "clear"},
    "queue-refresh": {"objective.queue_on_update": "refresh"},
    "no-queue": {"objective.queue": False},
    "gpaco": {
        "objective.mc_loss": "gpaco",
        "objective.expert_ce_weight": 0.0,
        "objective.importance_weight": 0.0,
    },
    "supcon-selfcon": {"objective.mc_loss": "supcon_selfcon"},
    "no-ace": {"model.ace": False},
    "no-samc": {"model.samc": False},
    "no-mc": {"objective.mc": False},
    "experts-1": {"model.experts": 1},
    "experts-2": {"model.experts": 2},
    "experts-3": {"model.experts": 3},
    "experts-4": {"model.experts": 4},
    "gate-gumbel": {"model.gate": "gumbel"},
    "gate-softmax": {"model.gate": "softmax"},
    "gate-mean": {"model.gate": "mean"},
    "samc-1": {"model.samc_expansion": 1},
    "samc-2": {"model.samc_expansion": 2},
    "samc-6": {"model.samc_expansion": 6},
    "samc-bn-shared": {"model.samc_bn": "shared"},
    "samc-bn-per-expert": {"model.samc_bn": "per_expert"},
    "resnet": {"objective.name": "classification"},
}
"""Loss, weighting, queue, ablations (the paper's Table 4) and the plain ResNet with the same backbone."""

_FIRST_WORDS: Final[Mapping[str, ArmKind]] = {
    "local": "local",
    "pooled": "pooled",
    **dict.fromkeys(RULES, "control"),
}
"""Words that are no federation: the two yardsticks, and controls that show a known bug (`simulation.bn_control`)."""
_WORDS_FOR_PEOPLE: Final[Mapping[str, str]] = {
    "local": "each site alone",
    "pooled": "one model on all images in one place",
    "control-bn-by-name": "control, a known bug: batch norm kept local where its name holds 'bn'; not deployable",
    "control-bn-by-type": "the same with batch norm found by type; not deployable",
}


@dataclass(frozen=True)
class Arm:
    """One way to train a study.

    Attributes:
        name: As asked for, e.g. "silo+logit-adjustment".
        kind: Who trains: all sites together, each alone, or one model on all images in one place; or a control.
        settings: Dotted study keys to values.
    """

    name: str
    kind: ArmKind
    settings: Mapping[str, Any]

    def yardstick(self, kind: Literal["local", "pooled"]) -> Arm:
        """Return the yardstick this arm is fairly measured by: the same loss and network, without the federation."""
        kept = [
            word for word in self.name.split("+") if word in _VARIATIONS and not word.startswith("weight-")
        ]
        return parse_arm("+".join([kind, *kept]))

    def study(self, base: StudyConfig, seed: int) -> StudyConfig:
        """Return the study this arm trains.

        Raises:
            SemcError: CONFIG_INVALID where the settings do not go together.
        """
        try:
            return parse_study(base.to_yaml(), {**self.settings, "seed": seed})
        except SemcError as error:
            raise SemcError(error.code, f"Arm '{self.name}': {error.problem}", error.fix) from error


def arm_words() -> dict[str, str]:
    """Return every word an arm's name may hold, with what it sets."""
    table = dict(_WORDS_FOR_PEOPLE)
    for word, settings in {**_FEDERATIONS, **_VARIATIONS}.items():
        table[word] = ", ".join(f"{key}={value}" for key, value in settings.items())
    return table


def parse_arm(name: str) -> Arm:
    """Return the arm of a name.

    Raises:
        SemcError: USAGE where a word is unknown, stands twice, or `local` and `pooled` do not stand alone in front.
    """
    words = [word.strip() for word in name.split("+")]
    known = {**_FEDERATIONS, **_VARIATIONS}
    kind: ArmKind = _FIRST_WORDS.get(words[0], "federated")
    settings: dict[str, Any] = {"federation.bn": "average"} if kind == "control" else {}
    for word in words if kind == "federated" else words[1:]:
        if word not in known:
            raise SemcError(
                ExitCode.USAGE,
                f"Arm '{name}': '{word}' is not known.",
                f"join any of these by +: {', '.join([*_FIRST_WORDS, *known])}",
            )
        settings |= known[word]
    if len(set(words)) != len(words):
        raise SemcError(ExitCode.USAGE, f"Arm '{name}' names one word twice.", "name each word once")
    # only an arm named so has a proximal term, whatever the study says; the yardsticks have nothing to hold on to
    if kind != "federated":
        settings |= {"federation.algorithm": "fedavg", "federation.proximal_mu": 0.0}
    elif settings.get("federation.algorithm", "fedprox") != "fedprox":
        settings.setdefault("federation.proximal_mu", 0.0)
    return Arm("+".join(words), kind, settings)


def parse_arms(names: Sequence[str]) -> list[Arm]:
    """Return several arms, each once, in the order asked for.

    Raises:
        SemcError: USAGE where there is none, or one is wrong.
    """
    arms = {arm.name: arm for arm in map(parse_arm, names)}
    if not arms:
        raise SemcError(ExitCode.USAGE, "No arm is named.", "--arms local,pooled,fedavg,silo")
    return list(arms.values())
