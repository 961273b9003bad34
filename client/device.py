"""Where a site computes."""

from __future__ import annotations

import torch

from semc.exit_codes import ExitCode, SemcError


def compute_device(setting: str) -> torch.device:
    """Return the device a site file asks for.

    Args:
        setting: `auto` (the first GPU, else the CPU), `cpu`, `cuda` or `cuda:<number>`.

    Raises:
        SemcError: DEVICE where the named GPU is not there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if setting == "auto":
        return torch.device("cuda:0" if count else "cpu")
    device = torch.device(setting)
    if device.type == "cuda" and (device.index or 0) >= count:
        raise SemcError(
            ExitCode.DEVICE,
            f"The site file asks for {setting}, this machine has {count} usable GPUs.",
            "set device: auto or cpu, or repair the driver",
        )
    return device
