"""Saved states that are either whole or absent: tensors and their JSON in one folder, written atomically.

The tensors are written under the name of their hash, then `state.json`, which names that file, replaces its
older version. That one rename is the moment of saving: a crash before it leaves the older state (or none),
after it the new one, also where a replayed round saves over its own folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from semc.exit_codes import ExitCode, SemcError
from semc.whole_file import sync, write_whole

STATE_FILE: Final = "state.json"
"""Its presence makes a folder a saved state."""
MODEL_PREFIX: Final = "model/"
"""In front of the names of the federation's shared tensors in a coordinator's checkpoint."""
_FORMAT: Final = 1


def save_state(folder: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Save tensors and their metadata; an older state in the same folder is replaced in one step.

    Args:
        folder: Made where missing, with its parents.
        tensors: By name, any dtype, any device; no two may share memory.
        metadata: What JSON can hold, e.g. round and study digest.

    Raises:
        SemcError: DISK where the disk is full or not writable; an older state is then intact.
    """
    temporary = folder / f".tensors-{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
        sync(temporary)
        sha256 = _sha256(temporary)
        tensor_file = f"tensors-{sha256[:16]}.safetensors"
        os.replace(temporary, folder / tensor_file)
        content = {
            "format": _FORMAT,
            "tensor_file": tensor_file,
            "sha256": sha256,
            "metadata": dict(metadata),
        }
        _write_json(folder, {**content, "digest": _digest(content)})
        sync(folder.parent)
        _remove_leftovers(folder, keep=tensor_file)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            temporary.unlink()
        reason = error.strerror if isinstance(error, OSError) else "input/output error"
        raise SemcError(
            ExitCode.DISK, f"A state could not be saved ({reason}).", "free space or make the folder writable"
        ) from error


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load what :func:`save_state` saved.

    Returns:
        The tensors on the CPU, and the metadata.

    Raises:
        SemcError: CHECKPOINT_INVALID where the state is missing, damaged or of another format.
    """
    with _sound(folder):
        content = _description(folder)
        tensor_file = folder / Path(content["tensor_file"]).name
        if _sha256(tensor_file) != content["sha256"]:
            raise ValueError("the tensors are damaged")
        return load_file(tensor_file), dict(content["metadata"])


def load_metadata(folder: Path) -> dict[str, Any]:
    """Load the metadata of a state alone; its tensors, which may be large, are not looked at.

    Raises:
        SemcError: CHECKPOINT_INVALID where the description is missing, damaged or of another format.
    """
    with _sound(folder):
        return dict(_description(folder)["metadata"])


def saved_states(folder: Path, prefix: str) -> list[Path]:
    """Return the complete states ``<prefix><number>`` in a folder, oldest (smallest number) first."""
    if not folder.is_dir():
        return []
    found = [
        (int(number), path)
        for path in folder.iterdir()
        if path.name.startswith(prefix)
        and (number := path.name.removeprefix(prefix)).isdecimal()
        and (path / STATE_FILE).is_file()
    ]
    return [path for _, path in sorted(found)]


def latest(folder: Path, prefix: str) -> Path | None:
    """Return the newest complete state ``<prefix><number>`` in a folder, or None (prefix e.g. "round-")."""
    states = saved_states(folder, prefix)
    return states[-1] if states else None


def prune(folder: Path, prefix: str, keep: int, spare: Collection[Path] = ()) -> None:
    """Remove all but the newest `keep` states and those to spare.

    Raises:
        SemcError: DISK where one cannot be removed.
    """
    states = saved_states(folder, prefix)
    try:
        for path in states[: max(len(states) - keep, 0)]:
            if path in spare:
                continue
            # First the file that makes it a state: a half-removed one must not be taken for whole.
            (path / STATE_FILE).unlink()
            shutil.rmtree(path)
    except OSError as error:
        raise SemcError(
            ExitCode.DISK,
            f"An old state could not be removed ({error.strerror}).",
            "make the folder writable",
        ) from error


@contextmanager
def _sound(folder: Path) -> Iterator[None]:
    """Say of whatever goes wrong in the block that the state is not sound."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise SemcError(
            ExitCode.CHECKPOINT_INVALID,
            f"The saved state '{folder.name}' is missing, damaged or of another version.",
            "remove it to continue from the state before it, or restore it from a backup",
        ) from error


def _description(folder: Path) -> dict[str, Any]:
    """Return what the folder's description holds, without its digest, which must fit."""
    content: dict[str, Any] = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    digest = content.pop("digest")
    if content["format"] != _FORMAT or digest != _digest(content):
        raise ValueError("the description is damaged")
    return content


def _remove_leftovers(folder: Path, keep: str) -> None:
    """Remove the older tensors and what interrupted savings left behind."""
    for pattern in ("tensors-*.safetensors", ".*.part"):
        for path in folder.glob(pattern):
            if path.name != keep:
                path.unlink()


def _write_json(folder: Path, content: Mapping[str, Any]) -> None:
    """Replace the folder's description by a complete new one."""
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False)
    write_whole(folder / STATE_FILE, text.encode())


def _digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of the description without its own digest."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _sha256(path: Path) -> str:
    """Return a file's SHA-256 (hex)."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
