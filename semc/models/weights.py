"""Pretrained ResNet weights: from torch's hub cache or the folder this machine's operator chose, never downloaded.

A study names a file of that folder, never a path. A file is read once; the bytes that were hashed are the bytes
that are parsed, by safetensors or by torch's weights-only unpickler. No message names the file.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from semc.config import ModelConfig
from semc.exit_codes import ExitCode, SemcError

# One version per backbone: sites with different files would start from different batch-norm statistics. The
# names are written out and held equal to torchvision's by a test: importing torchvision costs 2 s of CPU.
TORCHVISION_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
}

WEIGHTS_DIRECTORY: Final = "SEMC_WEIGHTS_DIRECTORY"
"""Environment variable: folder of weight files, where no site file names one (coordinator, simulation)."""

MAX_WEIGHTS_BYTES: Final = 2 << 30
"""Largest file read, 2 GiB: a ResNet-50 has 0.1 GiB."""


def load_weights(config: ModelConfig, directory: Path | None = None) -> dict[str, Tensor] | None:
    """Return the pretrained ResNet state dict a study names, or None for `weights: none`.

    Args:
        config: The study's model section; a file it names is a bare name.
        directory: Folder of weight files; None = the folder SEMC_WEIGHTS_DIRECTORY names.

    Raises:
        SemcError: WEIGHTS_INVALID, there is no folder, or the file is missing, not a regular file, too large, of
            another hash, or not a state dict.
    """
    if config.weights == "none":
        return None
    if config.weights == "torchvision":
        name = TORCHVISION_FILES[config.backbone]
        content = _read(
            Path(torch.hub.get_dir()) / "checkpoints" / name,
            f"copy torchvision's {config.backbone} weights into torch's hub cache, or use weights: none",
        )
        # torchvision's files carry the first digits of their hash: resnet18-f37072fd.pth
        _check_hash(content, Path(name).stem.rpartition("-")[2])
        return _parse(content, safetensors=False)
    path = _directory(directory) / config.weights
    content = _read(path, "correct model.weights, or copy the file into the weights directory")
    assert config.weights_sha256 is not None  # the config refuses a file name without one
    _check_hash(content, config.weights_sha256)
    return _parse(content, safetensors=path.suffix == ".safetensors")


def part_of(weights: Mapping[str, Tensor], module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Return a module's share of a state dict, checked against it.

    Args:
        weights: A ResNet's state dict, torchvision's keys.
        module: Where the share will be loaded.
        prefix: What the module's keys start with in `weights`.

    Returns:
        A complete state dict for `module`; batch counters that old files lack are the module's own.

    Raises:
        SemcError: WEIGHTS_INVALID, a tensor is missing, of another shape, or not finite.
    """
    share = {}
    for key, own in module.state_dict().items():
        tensor = weights.get(prefix + key)
        if tensor is None and key.endswith("num_batches_tracked"):
            tensor = own
        if tensor is None:
            raise _invalid(f"lack the tensor '{prefix + key}'")
        if tensor.shape != own.shape:
            raise _invalid(
                f"have '{prefix + key}' as {list(tensor.shape)}, the backbone needs {list(own.shape)}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise _invalid(f"hold numbers in '{prefix + key}' that are not finite")
        share[key] = tensor
    return share


def _directory(given: Path | None) -> Path:
    named = os.environ.get(WEIGHTS_DIRECTORY)
    if given is not None:
        return given
    if named:
        return Path(named)
    raise SemcError(
        ExitCode.WEIGHTS_INVALID,
        "The study names a file of pretrained weights, and this machine has no folder of such files.",
        f"set weights_directory in the site file; at the coordinator, the variable {WEIGHTS_DIRECTORY}",
    )


def _read(path: Path, fix: str) -> bytes:
    """Read a regular file of bounded size; type and size are asked of the open file, before any byte is read."""
    try:
        # O_NONBLOCK: opening a pipe nobody writes to would wait for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise SemcError(
                    ExitCode.WEIGHTS_INVALID, "The pretrained weights are not a regular file.", fix
                )
            if status.st_size > MAX_WEIGHTS_BYTES:
                raise SemcError(
                    ExitCode.WEIGHTS_INVALID,
                    f"The pretrained weights are larger than {MAX_WEIGHTS_BYTES >> 30} GiB.",
                    fix,
                )
            return stream.read(status.st_size)
    except OSError as error:
        raise SemcError(
            ExitCode.WEIGHTS_INVALID, f"The pretrained weights cannot be read ({error.strerror}).", fix
        ) from error


def _check_hash(content: bytes, expected: str) -> None:
    """Compare the content's SHA-256 with the digits expected, a prefix or all."""
    actual = hashlib.sha256(content).hexdigest()
    if not actual.startswith(expected):
        raise SemcError(
            ExitCode.WEIGHTS_INVALID,
            f"The pretrained weights have SHA-256 {actual[:12]}..., expected {expected[:12]}...",
            "use the file the study names, or correct model.weights_sha256",
        )


def _parse(content: bytes, *, safetensors: bool) -> dict[str, Tensor]:
    try:
        if safetensors:
            return load_safetensors(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise _invalid("are not a state dict file") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise _invalid("are not a plain state dict")
    return state


def _invalid(what: str) -> SemcError:
    return SemcError(
        ExitCode.WEIGHTS_INVALID,
        f"The pretrained weights {what}.",
        "use a torchvision ResNet state dict of the study's backbone",
    )
