"""The training loop: a generator of steps. Logging, saving and stopping are its callers' business."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mesm_core.data.dataset import MomentDataset, read_ahead
from mesm_core.losses.criterion import Criterion
from mesm_core.processes import ALONE, Team
from mesm_core.training.guards import FiniteWatch, explained_memory
from mesm_core.training.precision import use_precision
from mesm_core.training.randomness import seed_everything
from mesm_core.types import Batch, Targets


@dataclass(frozen=True)
class Step:
    """One step done: which, how many queries, and its losses (detached; reading them waits for the device).

    ``waited``: seconds in which no batch was ready; ``checked``: losses of the last step that is known to be finite,
    this one or, on CUDA, the one before. Those can be shown to the user.
    """

    epoch: int
    index: int
    steps: int
    queries: int
    losses: dict[str, Tensor]
    waited: float = 0.0
    checked: dict[str, Tensor] = field(default_factory=dict)


def train_epoch(
    model: nn.Module,
    criterion: Criterion,
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
    """Yield each step of an epoch after it is done.

    A step takes ``accumulate`` batches in each process; its gradient is the mean of its batches', whichever process
    they fell to. So 2 processes, or 1 that accumulates 2, end with the same weights.

    Args:
        epoch: from 0; with ``seed`` it decides the batches and every draw.
        batch_size: groups a batch; grad_clip: largest gradient norm, 0 or less for no limit.
        precision: ``fp32``, ``tf32`` or ``bf16``; weights, losses and the optimiser stay in float32.
        first: step to begin with, from 0; those before it were done earlier.
        watch: sees that losses and gradients are finite. Where it learns of that late, as on CUDA, a caller that keeps
            what came of a step calls its ``finish`` first. Default: one for the device.

    Raises:
        MesmError: the loss or its gradient is not finite, or memory ran out. On the CPU the weights are then those
            from before the step.
    """
    plan = dataset.plan(seed=seed, epoch=epoch, batch_size=batch_size)
    together = accumulate * team.world
    steps = -(-len(plan) // together)
    model.train()
    work = [_share(range(step * together, min((step + 1) * together, len(plan))), team) for step in range(first, steps)]

    def make(index: int) -> Batch:
        batch = dataset.train_batch(plan[index], seed=seed, epoch=epoch, index=index)
        return batch.pinned() if device.type == "cuda" else batch

    batches = read_ahead(make, [index for parts in work for index, _ in parts])
    watch = FiniteWatch(device, team=team) if watch is None else watch
    losses: dict[str, Tensor] = {}
    for step, parts in enumerate(work, start=first):
        optimizer.zero_grad(set_to_none=True)
        before, losses = losses, {}
        queries, waited = 0, 0.0
        for number, (index, weight) in enumerate(parts, start=1):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            seed_everything(seed, epoch, index)
            # Processes exchange gradients once a step, behind its last batch.
            waits = team.world > 1 and number < len(parts)
            with explained_memory(batch), model.no_sync() if waits else nullcontext():  # type: ignore[operator]
                moved = batch.to(device)
                # Not open while this generator is suspended: the caller multiplies and evaluates in between.
                with use_precision(model, device, precision) as numbers:
                    with numbers:
                        output = model(moved.inputs, moved.targets)
                    found = criterion(output.float(), moved.inputs, _targets(moved))
                    found["loss"] = criterion.total(found)
                    (found["loss"] * weight).backward()  # type: ignore[no-untyped-call]
                watch.add(found["loss"], batch, output)
            for name, value in found.items():
                share = value.detach() * (weight / team.world)
                losses[name] = losses[name] + share if name in losses else share
            queries += len(batch.queries) if weight else 0
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip if grad_clip > 0 else math.inf)
        watch.see(norm, epoch=epoch, step=step)
        optimizer.step()
        yield Step(epoch, step, steps, queries, losses, waited, checked=before if watch.late else losses)
    watch.finish()


def _targets(batch: Batch) -> Targets:
    if batch.targets is None:
        raise ValueError("a training batch has targets")
    return batch.targets


def _share(indices: range, team: Team) -> list[tuple[int, float]]:
    """Return a step's batches of this process with their weights in the gradient that the team averages.

    Where batches do not go round, a process repeats the step's first one with weight 0.
    """
    weight = team.world / len(indices)
    mine = [(index, weight) for index in team.share(indices)]
    return mine + [(indices[0], 0.0)] * (-(-len(indices) // team.world) - len(mine))
