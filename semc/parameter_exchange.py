"""What of a network is shared with the federation and what stays at the site, decided by module TYPE.

Batch norm is recognised by ``isinstance(module, _BatchNorm)``, never by a name: 28 of SEMC's 95 batch-norm
layers (66 % of the channels) have no "bn" in their key, and "bn1" also matches "bn10".

============================== =================== ========= =========
tensor                         `average`, `frozen` `silo`    `fedbn`
============================== =================== ========= =========
every other float tensor       shared              shared    shared
batch norm gamma, beta         shared              shared    local
batch norm running statistics  shared              local     local
num_batches_tracked, integers  local               local     local
============================== =================== ========= =========

Frozen parameters (the router and alpha network of preset `reference`) are shared like trained ones: they
come from the study's seed, so they are equal everywhere and their mean is themselves, and the federation's
model is complete. Under `frozen` (privacy mode patient_dp) the sites receive what `average` shares and send back
only what they train, :func:`update_shapes`. Queue, optimiser and random state are not part of a network and never
meet this module.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from semc.exit_codes import ExitCode, SemcError

BnMode = Literal["silo", "fedbn", "average", "frozen"]


@dataclass(frozen=True)
class ParameterSplit:
    """A disjoint cover of a network's state: copies on the CPU, so later training changes neither part."""

    shared: dict[str, Tensor]
    """Leaves the site."""
    local: dict[str, Tensor]
    """Stays at the site."""


def split_parameters(network: nn.Module, bn: BnMode) -> ParameterSplit:
    """Copy a network's state into its shared and its local part.

    Args:
        network: Any module.
        bn: What of batch norm is shared; see the table above.

    Returns:
        Both parts by their key in ``network.state_dict()``, in that order.
    """
    local_names = _local_names(network, bn)
    shared: dict[str, Tensor] = {}
    local: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        part = local if name in local_names else shared
        part[name] = tensor.to("cpu", copy=True)
    return ParameterSplit(shared=shared, local=local)


def merge_shared(network: nn.Module, shared: Mapping[str, Tensor], bn: BnMode) -> None:
    """Copy received tensors into a network, leaving its local part bit for bit as it is.

    Args:
        network: Changed in place.
        shared: Exactly the tensors of ``split_parameters(network, bn).shared``.
        bn: The study's batch-norm mode.

    Raises:
        SemcError: STUDY_MISMATCH where a name or a shape differs; the network is then unchanged.
    """
    names = set(network.state_dict()) - _local_names(network, bn)
    _load(network, shared, names, "shared")


def load_local(network: nn.Module, local: Mapping[str, Tensor], bn: BnMode) -> None:
    """Copy a site's saved tensors into a network, leaving its shared part as it is.

    Raises:
        SemcError: STUDY_MISMATCH where a name or a shape differs; the network is then unchanged.
    """
    _load(network, local, _local_names(network, bn), "local")


def shared_shapes(network: nn.Module, bn: BnMode) -> dict[str, tuple[int, ...]]:
    """Return the shape of every shared tensor by name: what :func:`semc.wire.unpack` expects of a message."""
    local_names = _local_names(network, bn)
    return {
        name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if name not in local_names
    }


def update_shapes(network: nn.Module, bn: BnMode) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor a site sends back: the shared ones; under `frozen` those it trains."""
    shapes = shared_shapes(network, bn)
    if bn != "frozen":
        return shapes
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    return {name: shape for name, shape in shapes.items() if name in trained}


def shared_schema(network: nn.Module, bn: BnMode) -> str:
    """Return the SHA-256 (hex) of the shared tensors' names, shapes and dtypes.

    Two programs with the same schema can exchange weights; it is compared before the first round.
    """
    local_names = _local_names(network, bn)
    lines = sorted(
        f"{name} {list(tensor.shape)} {tensor.dtype}"
        for name, tensor in network.state_dict().items()
        if name not in local_names
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def batch_norm_names(network: nn.Module, bn: BnMode) -> frozenset[str]:
    """Return the shared keys of batch norm: gamma and beta, and under `average` the statistics too.

    A server optimiser leaves these at their plain mean: an adaptive step can make a variance negative.
    """
    affine, statistics = _batch_norm_keys(network)
    return frozenset((affine | statistics) - _local_names(network, bn))


def _batch_norm_keys(network: nn.Module) -> tuple[set[str], set[str]]:
    """Return the exact state keys of all batch norms: gamma and beta, and the buffers."""
    affine: set[str] = set()
    statistics: set[str] = set()
    for name, module in network.named_modules(remove_duplicate=False):
        if isinstance(module, _BatchNorm):
            prefix = f"{name}." if name else ""
            affine |= {prefix + key for key, _ in module.named_parameters(recurse=False)}
            statistics |= {prefix + key for key, _ in module.named_buffers(recurse=False)}
    return affine, statistics


def _local_names(network: nn.Module, bn: BnMode) -> set[str]:
    """Return the state keys that stay at the site."""
    local = {name for name, tensor in network.state_dict().items() if not tensor.is_floating_point()}
    affine, statistics = _batch_norm_keys(network)
    if bn in ("silo", "fedbn"):
        local |= statistics
    if bn == "fedbn":
        local |= affine
    return local


def _load(network: nn.Module, tensors: Mapping[str, Tensor], names: set[str], part: str) -> None:
    """Copy `tensors` into the network's state in place, once all names and shapes agree."""
    if tensors.keys() != names:
        missing, unknown = len(names - tensors.keys()), len(tensors.keys() - names)
        raise SemcError(
            ExitCode.STUDY_MISMATCH,
            f"The {part} tensors do not fit the network: {missing} missing, {unknown} unknown.",
            "use weights of the same study and software version",
        )
    state = network.state_dict()
    for name in tensors:
        if tensors[name].shape != state[name].shape:
            raise SemcError(
                ExitCode.STUDY_MISMATCH,
                f"The {part} tensor '{name}' has another shape than in the network.",
                "use weights of the same study and software version",
            )
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)
