"""Choice of devices by name, and copies between host and device that do not wait."""

from __future__ import annotations

import torch
from torch import Tensor

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


def pinned(size: int) -> Tensor:
    """Return pinned memory of a number of bytes (uint8). CUDA copies from it while the host goes on."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


class HostCopy:
    """A tensor that is being copied to the host. On the CPU it is there already."""

    def __init__(self, values: Tensor) -> None:
        self._values = values
        self._arrived: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def wait(self) -> Tensor:
        """Return the tensor on the host, once it has been copied."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._values
