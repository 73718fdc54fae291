"""Choice of devices by name."""

from __future__ import annotations

import torch

from mesm_core.errors import DeviceError


def build_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` is CUDA if available, else the CPU.

    Raises:
        DeviceError: the name is not auto, cpu, cuda or cuda:N, or the device does not exist.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in {"cpu", "cuda"}:
        raise DeviceError(f"Unknown device '{name}'.", hint="Use auto, cpu, cuda or cuda:N.")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not torch.cuda.is_available() or count == 0:
            raise DeviceError(
                "No CUDA device is available.", hint="Use --device cpu, or install a CUDA build of torch."
            )
        if (device.index or 0) >= count:
            raise DeviceError(f"{name} does not exist: this machine has {count} CUDA device(s), from cuda:0.")
    return device
