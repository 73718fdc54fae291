"""The training loop: a generator of steps. Logging, saving and stopping are its callers' business."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mesm_core.data.dataset import MomentDataset, read_ahead
from mesm_core.errors import MesmError
from mesm_core.losses.criterion import Criterion
from mesm_core.model.mesm import Mesm
from mesm_core.training.precision import use_precision
from mesm_core.training.randomness import seed_everything


@dataclass(frozen=True)
class Step:
    """One step done: which, how many queries, and its losses (detached; reading them waits for the device)."""

    epoch: int
    index: int
    steps: int
    queries: int
    losses: dict[str, Tensor]


def train_epoch(
    model: Mesm,
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
) -> Iterator[Step]:
    """Yield each step of an epoch after it is done.

    Args:
        epoch: from 0; with ``seed`` it decides the batches and every draw.
        batch_size: groups a batch; grad_clip: largest gradient norm, 0 or less for no limit.
        precision: ``fp32``, ``tf32`` or ``bf16``; weights, losses and the optimiser stay in float32.

    Raises:
        MesmError: the loss is not finite.
    """
    plan = dataset.plan(seed=seed, epoch=epoch, batch_size=batch_size)
    model.train()
    numbers = use_precision(model, device, precision)
    batches = read_ahead(
        lambda index: dataset.train_batch(plan[index], seed=seed, epoch=epoch, index=index), range(len(plan))
    )
    for index, batch in enumerate(batches):
        seed_everything(seed, epoch, index)
        moved = batch.to(device)
        if moved.targets is None:
            raise ValueError("a training batch has targets")
        with numbers:
            output = model(moved.inputs, moved.targets)
        losses = criterion(output.float(), moved.inputs, moved.targets)
        total = criterion.total(losses)
        if not torch.isfinite(total):
            vids = ", ".join(dict.fromkeys(query.vid for query in batch.queries))
            raise MesmError(
                f"The loss is {total.item()} in epoch {epoch + 1}, step {index + 1} (videos {vids}).",
                hint="Lower the learning rate (--set train.lr=…), or check these videos' features.",
            )
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        if grad_clip > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
        optimizer.step()
        detached = {name: value.detach() for name, value in losses.items()} | {"loss": total.detach()}
        yield Step(epoch, index, len(plan), len(batch.queries), detached)
