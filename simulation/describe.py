"""What a study's network costs and what leaves a hospital: counted before anything is trained.

The network is built on torch's meta device, so that 500 MB of weights need no memory. Multiply-accumulates
(MACs) are those of convolutions and matrix products for one image, as convolutions: the CPU's shortcuts for
small maps do not change them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from pydantic import BaseModel, ConfigDict
from rich.console import Group
from rich.table import Table
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from semc.config import StudyConfig, parse_study
from semc.models import build_model
from semc.objectives import build_objective
from semc.parameter_exchange import BnMode, shared_shapes
from semc.wire import ITEM_BYTES

_SHOWN_IN_PARTS = ("experts", "aces", "samc")
_NOT_IN_PUBLISHED_COUNTS = ("gate", "alpha_network")


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModuleCost(_Facts):
    """One part of the network."""

    name: str
    parameters: int
    macs: int
    """Multiply-accumulates for one image."""


class BatchNormFacts(_Facts):
    """Batch-norm layers, found by type."""

    layers: int
    channels: int


class ExchangeFacts(_Facts):
    """What one site and the coordinator exchange in a round; headers add about 0.1 kB per tensor."""

    bn: BnMode
    wire_dtype: str
    tensors: int
    upload_bytes: int
    download_bytes: int


class LocalGroup(_Facts):
    """Tensors that never leave a site."""

    name: str
    tensors: int
    bytes: int


class Description(_Facts):
    """Everything `semc-sim describe` prints."""

    preset: str
    backbone: str
    num_classes: int
    image_size: int
    parameters: int
    trainable_parameters: int
    parameters_without_gate_and_alpha: int
    """As the method's table counts: without router and alpha network."""
    macs: int
    modules: tuple[ModuleCost, ...]
    batch_norm: BatchNormFacts
    exchange: ExchangeFacts
    stays_local: tuple[LocalGroup, ...]


def describe_preset(preset: str, backbone: str, num_classes: int, image_size: int) -> Description:
    """Describe a preset as shipped, with `num_classes` unnamed classes.

    Raises:
        SemcError: CONFIG_INVALID, no such preset or backbone.
    """
    classes = [f"class-{number}" for number in range(1, num_classes + 1)]
    overrides = {
        "preset": preset,
        "data.classes": classes,
        "data.image_size": image_size,
        "model.backbone": backbone,
    }
    minimal = "{name: description, training: {local_steps: 1}, federation: {sites: [site-a, site-b, site-c]}}"
    return describe(parse_study(minimal, overrides))


def describe(study: StudyConfig) -> Description:
    """Count parameters, MACs, exchanged bytes and local tensors of a study's network."""
    # Pretrained weights change no count and need not be here.
    unweighted = study.model.model_copy(update={"weights": "none", "expert_init": "random"})
    with torch.device("meta"):
        network = build_model(study.model_copy(update={"model": unweighted}))
    macs = _macs(network, study.data.image_size)
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    parameters = _count(network)
    uncounted = sum(
        _count(child) for name, child in network.named_children() if name in _NOT_IN_PUBLISHED_COUNTS
    )
    return Description(
        preset=study.preset,
        backbone=study.model.backbone,
        num_classes=len(study.data.classes),
        image_size=study.data.image_size,
        parameters=parameters,
        trainable_parameters=sum(p.numel() for p in network.parameters() if p.requires_grad),
        parameters_without_gate_and_alpha=parameters - uncounted,
        macs=macs[""],
        modules=tuple(
            ModuleCost(name=name, parameters=_count(part), macs=macs.get(name, 0))
            for name, part in _parts(network)
        ),
        batch_norm=BatchNormFacts(layers=len(norms), channels=sum(norm.num_features for norm in norms)),
        exchange=_exchange(network, study),
        stays_local=tuple(_local_groups(network, study)),
    )


def describe_table(description: Description) -> Group:
    """Return a description as tables for the terminal."""
    title = f"{description.preset}, {description.backbone}, {description.num_classes} classes"
    modules = Table("module", title=f"{title}, {description.image_size} px")
    modules.add_column("parameters", justify="right")
    modules.add_column("million MACs per image", justify="right")
    for part in description.modules:
        modules.add_row(part.name, f"{part.parameters:,}", f"{part.macs / 1e6:,.1f}")
    modules.add_section()
    modules.add_row("total", f"{description.parameters:,}", f"{description.macs / 1e6:,.1f}")
    counted = f"{description.parameters_without_gate_and_alpha:,}"
    modules.add_row("total without gate and alpha network", counted, "")

    exchange, norm = description.exchange, description.batch_norm
    travels = Table("per round and site", title=f"what travels (bn: {exchange.bn}, {exchange.wire_dtype})")
    travels.add_column("tensors", justify="right")
    travels.add_column("MB", justify="right")
    travels.add_row("coordinator to site", f"{exchange.tensors:,}", f"{exchange.download_bytes / 1e6:,.1f}")
    travels.add_row("site to coordinator", f"{exchange.tensors:,}", f"{exchange.upload_bytes / 1e6:,.1f}")

    local = Table("stays at the site", title=f"{norm.layers} batch-norm layers, {norm.channels:,} channels")
    local.add_column("tensors", justify="right")
    local.add_column("MB", justify="right")
    for group in description.stays_local:
        local.add_row(group.name, f"{group.tensors:,}", f"{group.bytes / 1e6:,.2f}")
    return Group(modules, travels, local)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _parts(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the network's parts that hold parameters, experts, ACE and SAMC in pieces."""
    for name, child in network.named_children():
        pieces = dict(child.named_children()) if name in _SHOWN_IN_PARTS else {}
        for path, part in {f"{name}.{key}": piece for key, piece in pieces.items()}.items() or [
            (name, child)
        ]:
            if _count(part):
                yield path, part


def _macs(network: nn.Module, image_size: int) -> dict[str, int]:
    """Return the MACs of one image by module path; "" is the whole network."""
    network.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, image_size, image_size, device="meta"))
    root = type(network).__name__
    by_module = {
        path.removeprefix(root).removeprefix("."): sum(operations.values()) // 2
        for path, operations in counter.get_flop_counts().items()
        if path.startswith(root)
    }
    return {**by_module, "": counter.get_total_flops() // 2}


def _exchange(network: nn.Module, study: StudyConfig) -> ExchangeFacts:
    bn, wire_dtype = study.federation.bn, study.federation.wire_dtype
    shapes = shared_shapes(network, bn)
    size = sum(torch.Size(shape).numel() for shape in shapes.values()) * ITEM_BYTES[wire_dtype]
    return ExchangeFacts(
        bn=bn, wire_dtype=wire_dtype, tensors=len(shapes), upload_bytes=size, download_bytes=size
    )


def _local_groups(network: nn.Module, study: StudyConfig) -> Iterator[LocalGroup]:
    """Yield what a site keeps, from the objects that hold it; empty groups are left out."""
    shared = shared_shapes(network, study.federation.bn)
    own = {key: tensor for key, tensor in network.state_dict().items() if key not in shared}
    counters = {key: tensor for key, tensor in own.items() if not tensor.is_floating_point()}
    buffers = dict(network.named_buffers())
    statistics = {key: tensor for key, tensor in own.items() if key in buffers and key not in counters}
    affine = {key: tensor for key, tensor in own.items() if key not in counters and key not in statistics}
    # The largest queue: a site with fewer images has fewer slots.
    objective = build_objective(study, [1] * len(study.data.classes), study.objective.queue_size).state_dict()
    queue = {key: tensor for key, tensor in objective.items() if key.startswith("queue.")}
    means = {key: tensor for key, tensor in objective.items() if key not in queue}
    trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
    ema = study.objective.name == "semc" and study.objective.mc and study.objective.key_encoder == "ema"
    groups: dict[str, Mapping[str, Tensor]] = {
        "batch-norm running statistics": statistics,
        "batch-norm gamma and beta": affine,
        "batch-norm batch counters": counters,
        "memory queue: embeddings, labels, image ids, ages": queue,
        "running means of the losses": means,
        "optimiser momentum": trainable if study.training.momentum > 0 else {},
        "slow key encoder (in memory only)": network.state_dict() if ema else {},
    }
    for name, tensors in groups.items():
        if tensors:
            size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
            yield LocalGroup(name=name, tensors=len(tensors), bytes=size)
