"""Checks of saved local state: exactly the expected names, shapes and types."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from semc.exit_codes import ExitCode, SemcError


def copy_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return independent copies on the CPU, ready for a safetensors file."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def check_tensors(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse a state that does not fit.

    Args:
        state: What was read.
        expected: Tensors of the right names, shapes and types; their values do not matter.

    Raises:
        SemcError: CHECKPOINT_INVALID.
    """
    for name in sorted(state.keys() | expected.keys()):
        if name not in state:
            problem = f"The saved training state lacks '{name}'."
        elif name not in expected:
            problem = f"The saved training state holds '{name}', which this study does not use."
        elif state[name].shape != expected[name].shape or state[name].dtype != expected[name].dtype:
            problem = f"'{name}' in the saved training state has another shape or type than this study needs."
        else:
            continue
        raise SemcError(
            ExitCode.CHECKPOINT_INVALID,
            problem,
            "resume with the study and training split the state was saved with, or remove the site's state",
        )
