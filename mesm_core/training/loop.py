"""The training loop: a generator of steps. The callers log, save and stop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mesm_core.data.dataset import MomentDataset, read_ahead
from mesm_core.devices import pinned
from mesm_core.processes import ALONE, Team
from mesm_core.training.finite import FiniteWatch
from mesm_core.training.memory import explained_memory
from mesm_core.training.objective import TOTAL
from mesm_core.training.optim import clip_gradients
from mesm_core.training.precision import use_precision
from mesm_core.training.randomness import seed_everything
from mesm_core.types import Batch, Targets


@dataclass(frozen=True)
class Step:
    """A completed step: its epoch and index, the number of its queries, and its losses.

    ``losses``: detached; reading them waits for the device; ``waited``: seconds spent waiting for batches;
    ``checked``: losses of the last step known to be finite, i.e. this one or, on CUDA, the one before. Show these to
    the user.
    """

    epoch: int
    index: int
    steps: int
    queries: int
    losses: dict[str, Tensor]
    waited: float = 0.0
    checked: dict[str, Tensor] = field(default_factory=dict)


def train_epoch(
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    dataset: MomentDataset,
    *,
    epoch: int,
    seed: int,
    batch_size: int,
    grad_clip: float,
    device: torch.device,
    precision: str = "fp32",
    first: int = 0,
    accumulate: int = 1,
    team: Team = ALONE,
    watch: FiniteWatch | None = None,
) -> Iterator[Step]:
    """Train for an epoch and yield every completed step.

    A step takes ``accumulate`` batches in each process. Its gradient is the mean over all these batches, so two
    processes give the same weights as one process that accumulates two batches.

    Args:
        objective: an ``Objective``, or one that is compiled or wrapped by ``Team.wrap``.
        epoch: number of the epoch, from 0; with ``seed`` it determines the batches and every random draw.
        batch_size: groups per batch; grad_clip: largest gradient norm, 0 or less for no limit.
        precision: ``fp32``, ``tf32`` or ``bf16``; weights, losses and the optimiser stay in float32.
        first: step to start with, from 0, when an epoch is resumed.
        watch: checks that losses and gradients are finite. If it checks late, as on CUDA, call its ``finish`` before
            the result of a step is saved. Default: a watch for the device.

    Raises:
        MesmError: the loss or its gradient is not finite, or memory ran out. On the CPU, the weights are then as they
            were before the step.
    """
    plan = dataset.plan(seed=seed, epoch=epoch, batch_size=batch_size)
    per_step = accumulate * team.world
    steps = -(-len(plan) // per_step)
    objective.train()
    work = [_share(range(step * per_step, min((step + 1) * per_step, len(plan))), team) for step in range(first, steps)]

    def make(index: int) -> Batch:
        pack = pinned if device.type == "cuda" else None
        return dataset.train_batch(plan[index], seed=seed, epoch=epoch, index=index, pack=pack)

    batches = read_ahead(make, [index for parts in work for index, _ in parts], threads=dataset.readers)
    watch = FiniteWatch(device, team=team) if watch is None else watch
    names: tuple[str, ...] = ()
    losses: dict[str, Tensor] = {}
    for step, parts in enumerate(work, start=first):
        optimizer.zero_grad(set_to_none=True)
        shares: list[Tensor] = []
        queries, waited = 0, 0.0
        for number, (index, weight) in enumerate(parts, start=1):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            seed_everything(seed, epoch, index)
            # Processes exchange gradients once per step, after its last batch.
            defer_exchange = team.world > 1 and number < len(parts)
            with explained_memory(batch), objective.no_sync() if defer_exchange else nullcontext():  # type: ignore[operator]
                moved = batch.to(device)
                # Closed before the generator yields, because the caller may evaluate before the next step.
                with use_precision(objective, device, precision) as autocast:
                    with autocast:
                        found, output = objective(moved.inputs, _targets(moved))
                    found[TOTAL].backward(torch.full_like(found[TOTAL], weight))
                watch.add(found[TOTAL], batch, output)
            names = tuple(found)
            shares.append(torch.stack(list(found.values())).detach() * (weight / team.world))
            queries += len(batch.queries) if weight else 0
        norm = clip_gradients(optimizer, grad_clip if grad_clip > 0 else math.inf)
        watch.check(norm, epoch=epoch, step=step)
        optimizer.step()
        before, losses = losses, dict(zip(names, sum(shares[1:], start=shares[0]).unbind(), strict=True))
        yield Step(epoch, step, steps, queries, losses, waited, checked=before if watch.late else losses)
    watch.finish()


def _targets(batch: Batch) -> Targets:
    if batch.targets is None:
        raise ValueError("a training batch has targets")
    return batch.targets


def _share(indices: range, team: Team) -> list[tuple[int, float]]:
    """Return this process's batches of a step, with their weights in the gradient that the team averages.

    With fewer batches than processes, a process repeats the step's first batch with weight 0.
    """
    weight = team.world / len(indices)
    mine = [(index, weight) for index in team.share(indices)]
    return mine + [(indices[0], 0.0)] * (-(-len(indices) // team.world) - len(mine))
