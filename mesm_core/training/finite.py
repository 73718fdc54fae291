"""Detection of losses and gradients that are not finite, and of the videos that cause them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mesm_core.devices import HostCopy
from mesm_core.errors import MesmError
from mesm_core.processes import ALONE, Team
from mesm_core.types import Batch, ModelOutput, Query


@dataclass(frozen=True)
class Fault:
    """A value that is not finite in one process's share of a step.

    ``value``: the loss, or the norm of the gradient if every loss is finite (``in_loss`` False);
    ``vids``: the videos that cause it; ``queries``: the queries of the affected batches.
    """

    value: float
    in_loss: bool
    vids: tuple[str, ...]
    queries: tuple[Query, ...]


class NotFiniteError(MesmError):
    """The loss or the gradient is NaN or infinite.

    ``vids``: the videos that cause it, over all processes; ``queries``: the queries of the affected batches.
    """

    def __init__(self, faults: Sequence[Fault], *, epoch: int, step: int) -> None:
        # A NaN loss in one process makes the gradient NaN in all processes; only its own videos are the cause.
        faults = [fault for fault in faults if fault.in_loss] or faults
        self.vids = list(dict.fromkeys(vid for fault in faults for vid in fault.vids))
        self.queries = [query for fault in faults for query in fault.queries]
        first = faults[0]
        problem = f"The loss is {first.value}"
        if not first.in_loss:
            problem = f"The loss is finite, but the norm of its gradient is {first.value}"
        super().__init__(
            f"{problem} in epoch {epoch + 1}, step {step + 1} (videos {', '.join(self.vids)}).",
            hint="Lower the learning rate (--set train.lr=…), or check these videos' features.",
        )


@dataclass(frozen=True)
class _BatchLoss:
    """The loss of a batch, with the detached (Q, …) outputs that show which of its queries cause a fault."""

    loss: Tensor
    queries: tuple[Query, ...]
    outputs: tuple[Tensor, ...]

    def faulty_videos(self) -> tuple[str, ...]:
        """Return the videos of the queries whose outputs are not finite, or all videos if all outputs are finite."""
        finite = torch.stack([torch.isfinite(output).flatten(1).all(dim=1) for output in self.outputs]).all(dim=0)
        bad = [query.vid for query, good in zip(self.queries, finite.tolist(), strict=True) if not good]
        return tuple(dict.fromkeys(bad or [query.vid for query in self.queries]))


@dataclass(frozen=True)
class _Pending:
    """A step that is not checked yet: its losses, followed by the norm of its gradient, being copied to the host."""

    values: HostCopy
    batches: tuple[_BatchLoss, ...]
    epoch: int
    step: int

    def fault(self) -> Fault | None:
        """Return what is not finite, or None. Waits until the values have been copied."""
        *losses, norm = self.values.wait().tolist()
        bad = [number for number, loss in enumerate(losses) if not math.isfinite(loss)]
        if not bad and math.isfinite(norm):
            return None
        batches = [self.batches[number] for number in bad] or self.batches
        return Fault(
            value=losses[bad[0]] if bad else norm,
            in_loss=bool(bad),
            vids=tuple(dict.fromkeys(vid for batch in batches for vid in batch.faulty_videos())),
            queries=tuple(query for batch in batches for query in batch.queries),
        )


class FiniteWatch:
    """Checks that losses and gradients are finite.

    On the CPU a step is checked before the optimiser applies it. On CUDA this would make the device wait, so a step is
    checked when ``check`` is called for the next one, or by ``finish``. Call ``finish`` before the result of a step is
    saved, evaluated or reported.

    Args:
        device: device that computes the steps.
        team: processes that train together. They must call ``check`` and ``finish`` together; a fault in one process
            raises in all.
        late: check a step when ``check`` is called for the next one. Default: on CUDA only.
    """

    def __init__(self, device: torch.device, *, team: Team = ALONE, late: bool | None = None) -> None:
        self.late = device.type == "cuda" if late is None else late
        self._team = team
        self._batches: list[_BatchLoss] = []
        self._pending: _Pending | None = None

    def add(self, loss: Tensor, batch: Batch, output: ModelOutput) -> None:
        """Add the loss of a batch to the current step."""
        outputs = (output.saliency.detach(), output.spans[-1].detach())
        self._batches.append(_BatchLoss(loss.detach(), batch.queries, outputs))

    def check(self, norm: Tensor, *, epoch: int, step: int) -> None:
        """End the current step and check its losses and the norm of its gradient; if late, check the step before.

        Raises:
            NotFiniteError: one of the values is not finite.
        """
        batches, self._batches = tuple(self._batches), []
        values = torch.stack([*(batch.loss for batch in batches), norm.detach().to(batches[0].loss)])
        pending = _Pending(HostCopy(values), batches, epoch, step)
        self.finish()
        self._pending = pending
        if not self.late:
            self.finish()

    def finish(self) -> None:
        """Check the step that is not checked yet. All processes of the team must call this together.

        Raises:
            NotFiniteError: one of its values is not finite, in any process of the team.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        fault = pending.fault()
        if self._team.any(fault is not None):
            faults = [each for share in self._team.gather([] if fault is None else [fault]) for each in share]
            raise NotFiniteError(faults, epoch=pending.epoch, step=pending.step)
