"""Teams of processes that train one model together."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from mesm_core.errors import DeviceError, MesmError
from mesm_core.torchrun import this_process

PARENT_SECONDS = 1.0
Value = TypeVar("Value")


@dataclass(frozen=True)
class Team:
    """The processes of a run. ``world`` is their number; the main process, with ``rank`` 0, writes and prints."""

    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which writes and prints."""
        return self.rank == 0

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Wrap a model so that its gradients are averaged over the processes."""
        if self.world == 1:
            return model
        ids = [device.index] if device.type == "cuda" and device.index is not None else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)

    def share(self, items: Sequence[Value]) -> list[Value]:
        """Return this process's share of a list: every ``world``-th item."""
        return list(items[self.rank :: self.world])

    def gather(self, mine: list[Value]) -> list[list[Value]]:
        """Return the lists of all processes, by rank. All processes must call this together."""
        if self.world == 1:
            return [mine]
        everyone: list[Any] = [None] * self.world
        dist.all_gather_object(everyone, mine)
        return everyone

    def from_main(self, make: Callable[[], Value]) -> Value:
        """Return what ``make`` returns in the main process, which alone calls it, for example to read its files.

        All processes must call this together.

        Raises:
            MesmError: ``make`` raised it.
        """
        if self.world == 1:
            return make()
        made: list[Any] = [None, None]  # the value, or the error
        if self.is_main:
            try:
                made[0] = make()
            except MesmError as error:
                made[1] = error
        dist.broadcast_object_list(made, src=0)
        if made[1] is not None:
            raise made[1]
        found: Value = made[0]
        return found

    def any(self, flag: bool) -> bool:
        """Return whether the flag is True in any process. All processes must call this together."""
        if self.world == 1:
            return flag
        flags = torch.tensor([int(flag)])
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags.item())


ALONE = Team()


class LostProcessError(DeviceError):
    """Another process of the team has ended, or cannot be reached."""


@contextmanager
def losses_explained() -> Iterator[None]:
    """Raise LostProcessError where torch says that a process of the team does not answer."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise LostProcessError(
            "Another process of this training has ended, or the connection to its machine is lost.",
            hint="The output on the other machines says why.",
        ) from error


def join_team(device: torch.device) -> tuple[Team, torch.device]:
    """Return the team and device of this process. A process started by torchrun joins the others.

    Raises:
        DeviceError: this machine has fewer GPUs than processes, or another process cannot be reached.
    """
    started = this_process()
    if started.world == 1:
        return Team(), device
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if started.local_world > count:
            raise DeviceError(
                f"{started.local_world} processes, but this machine has {count} GPU(s).", hint="Start fewer processes."
            )
        device = torch.device("cuda", started.local_rank)
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        # Default arguments in this module hold the group that exists at its first import, and DDP imports it. Imported
        # after init_process_group, they would keep our group alive.
        import_module("torch.distributed.nn.functional")
        # Gloo exchanges flags and predictions, which are on the host; NCCL exchanges gradients.
        with losses_explained():
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        threading.Thread(target=_end_with_launcher, args=(os.getppid(),), daemon=True).start()
    return Team(dist.get_rank(), dist.get_world_size()), device


def _end_with_launcher(launcher: int) -> None:
    """Ask this process to end once the launcher that started it is gone; without it, nobody would end it."""
    while os.getppid() == launcher:
        time.sleep(PARENT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def require_gpus(count: int) -> None:
    """Raise DeviceError if this machine has fewer GPUs than ``count``."""
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if present < count:
        raise DeviceError(
            f"--gpus {count}: this machine has {present} CUDA device(s).",
            hint="Use fewer, or train on the CPU: torchrun --nproc-per-node N -m mesm_cli.app train … --device cpu.",
        )


def leave_team() -> None:
    """Destroy the process group that ``join_team`` created.

    Its threads end when the last reference to it is gone, e.g. that of the wrapped model. A thread that still runs when
    the interpreter exits may abort the process.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()


def launch(module: str, words: Sequence[str], *, processes: int) -> int:
    """Run ``python -m module words`` in ``processes`` processes with torch's elastic launcher, and wait for them.

    Returns:
        The exit code: 0, that of the first failed process, or 128 plus the signal that ended the launcher.
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
