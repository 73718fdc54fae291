"""Several processes that train one model: who does what, and what they tell each other."""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from mesm_core.errors import DeviceError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Team:
    """The processes of a run; ``rank`` 0 is the one that writes and prints."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """True in the process that writes and prints."""
        return self.rank == 0

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Return the model as the training loop calls it: its gradients are averaged over the processes."""
        if self.world == 1:
            return model
        ids = [device.index] if device.type == "cuda" and device.index is not None else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)

    def share(self, items: Sequence[Value]) -> list[Value]:
        """Return this process's share of a list: every ``world``-th item."""
        return list(items[self.rank :: self.world])

    def gather(self, mine: list[Value]) -> list[list[Value]]:
        """Return every process's list, by rank, in every process."""
        if self.world == 1:
            return [mine]
        everyone: list[Any] = [None] * self.world
        dist.all_gather_object(everyone, mine)
        return everyone

    def any(self, flag: bool) -> bool:
        """Return whether any process says True; all must ask."""
        if self.world == 1:
            return flag
        told = torch.tensor([int(flag)])
        dist.all_reduce(told, op=dist.ReduceOp.MAX)
        return bool(told.item())


ALONE = Team()


def join_team(device: torch.device) -> tuple[Team, torch.device]:
    """Return this process's team and device; started by torchrun it joins the others, else it is alone.

    Raises:
        DeviceError: there are fewer GPUs here than processes.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Team(), device
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        count = torch.cuda.device_count()
        here = max(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), local + 1)
        if here > count:
            raise DeviceError(f"{here} processes, but this machine has {count} GPU(s).", hint="Start fewer processes.")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        # Its functions' defaults are the group there is at its first import, and DDP imports it: later, they keep ours.
        import_module("torch.distributed.nn.functional")
        # Flags and predictions travel between hosts' memories, gradients between devices.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return Team(dist.get_rank(), dist.get_world_size()), device


def require_gpus(count: int) -> None:
    """Raise DeviceError where this machine has fewer GPUs than ``count``."""
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if present < count:
        raise DeviceError(
            f"--gpus {count}: this machine has {present} CUDA device(s).",
            hint="Ask for fewer; on the CPU: torchrun --nproc-per-node N -m mesm_cli.app train … --device cpu.",
        )


def leave_team() -> None:
    """End what ``join_team`` began.

    The group's threads end with its last holder, the wrapped model among them. One that still runs while the
    interpreter ends may abort the process.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()


def launch(module: str, words: Sequence[str], *, processes: int) -> int:
    """Start ``processes`` of ``python -m module words`` on this machine with torch's elastic launcher, and wait.

    Returns:
        The exit code: 0, the first failed process's, or 128 and the signal that ended the launcher.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.main(["--standalone", f"--nproc-per-node={processes}", "-m", module, *words])
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    except SignalException as error:
        return 128 + error.sigval
    return 0
