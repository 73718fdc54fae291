"""What can go wrong in a step, told as it concerns the user: values that are not finite, memory that ran out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from mesm_core.errors import MesmError, count
from mesm_core.processes import ALONE, Team
from mesm_core.types import Batch, ModelOutput, Query


@dataclass(frozen=True)
class Fault:
    """What is not finite in a process's share of a step.

    ``value``: the loss, or the gradient's norm where every loss is finite (``in_loss`` False); ``vids``: the videos
    to blame; ``queries``: those of the batches it happened in.
    """

    value: float
    in_loss: bool
    vids: tuple[str, ...]
    queries: tuple[Query, ...]


class NotFiniteError(MesmError):
    """The loss or the gradient is NaN or infinite.

    ``vids``: the videos to blame, of all processes; ``queries``: those of the batches it happened in.
    """

    def __init__(self, faults: Sequence[Fault], *, epoch: int, step: int) -> None:
        # A loss that is NaN in one process makes the gradient of all NaN: the others' videos are not to blame.
        faults = [fault for fault in faults if fault.in_loss] or faults
        self.vids = list(dict.fromkeys(vid for fault in faults for vid in fault.vids))
        self.queries = [query for fault in faults for query in fault.queries]
        first = faults[0]
        what = f"The loss is {first.value}"
        if not first.in_loss:
            what = f"The loss is finite, but the norm of its gradient is {first.value}"
        super().__init__(
            f"{what} in epoch {epoch + 1}, step {step + 1} (videos {', '.join(self.vids)}).",
            hint="Lower the learning rate (--set train.lr=…), or check these videos' features.",
        )


@dataclass(frozen=True)
class _Share:
    """A batch's loss and what tells which of its queries are to blame: (Q, …) outputs, detached."""

    loss: Tensor
    queries: tuple[Query, ...]
    outputs: tuple[Tensor, ...]

    def blamed(self) -> tuple[str, ...]:
        """Return the videos of the queries whose outputs are not finite, or of all where all are."""
        finite = torch.stack([torch.isfinite(output).flatten(1).all(dim=1) for output in self.outputs]).all(dim=0)
        bad = [query.vid for query, good in zip(self.queries, finite.tolist(), strict=True) if not good]
        return tuple(dict.fromkeys(bad or [query.vid for query in self.queries]))


@dataclass(frozen=True)
class _Seen:
    """A step's losses, with its gradient's norm behind them, on their way to the host."""

    values: Tensor
    arrived: torch.cuda.Event | None
    shares: tuple[_Share, ...]
    epoch: int
    step: int

    def fault(self) -> Fault | None:
        """Return what is not finite, or None; waits for the device to have told."""
        if self.arrived is not None:
            self.arrived.synchronize()
        *losses, norm = self.values.tolist()
        bad = [number for number, loss in enumerate(losses) if not math.isfinite(loss)]
        if not bad and math.isfinite(norm):
            return None
        shares = [self.shares[number] for number in bad] or self.shares
        return Fault(
            value=losses[bad[0]] if bad else norm,
            in_loss=bool(bad),
            vids=tuple(dict.fromkeys(vid for share in shares for vid in share.blamed())),
            queries=tuple(query for share in shares for query in share.queries),
        )


class FiniteWatch:
    """Sees that losses and gradients are finite.

    On the CPU a step is checked before the optimiser takes it. On CUDA that would make the device wait, so a step is
    checked when the next one is seen, and by ``finish``, which everyone calls who keeps, judges or tells what came of
    it.

    Args:
        device: where the steps are computed.
        team: processes that train together; they see and finish together, and all learn of one's fault.
        late: check a step when the next one is seen; default: on CUDA.
    """

    def __init__(self, device: torch.device, *, team: Team = ALONE, late: bool | None = None) -> None:
        self.late = device.type == "cuda" if late is None else late
        self._team = team
        self._shares: list[_Share] = []
        self._before: _Seen | None = None

    def add(self, loss: Tensor, batch: Batch, output: ModelOutput) -> None:
        """Take note of a batch's loss, a part of the step under way."""
        outputs = (output.saliency.detach(), output.spans[-1].detach())
        self._shares.append(_Share(loss.detach(), batch.queries, outputs))

    def see(self, norm: Tensor, *, epoch: int, step: int) -> None:
        """Check a step by its losses and its gradient's norm; if late, check the one before it.

        Raises:
            NotFiniteError: they are not finite.
        """
        shares, self._shares = tuple(self._shares), []
        values, arrived = torch.stack([*(share.loss for share in shares), norm.detach().to(shares[0].loss)]), None
        if values.device.type == "cuda":
            values, arrived = _on_its_way(values)
        seen = _Seen(values, arrived, shares, epoch, step)
        self.finish()
        self._before = seen
        if not self.late:
            self.finish()

    def finish(self) -> None:
        """Check the step that was not checked yet.

        Raises:
            NotFiniteError: something in it is not finite, in any process of the team; all must ask.
        """
        seen, self._before = self._before, None
        if seen is None:
            return
        fault = seen.fault()
        if self._team.any(fault is not None):
            faults = [each for share in self._team.gather([] if fault is None else [fault]) for each in share]
            raise NotFiniteError(faults, epoch=seen.epoch, step=seen.step)


def _on_its_way(values: Tensor) -> tuple[Tensor, torch.cuda.Event]:
    """Return a copy on the host, and the event that tells when it holds the values."""
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()
    return host, arrived


@contextmanager
def explained_memory(batch: Batch) -> Iterator[None]:
    """Turn running out of memory into a message about the batch.

    Raises:
        MesmError: memory ran out inside the context.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error).lower()
        if not isinstance(error, MemoryError) and "out of memory" not in text and "can't allocate memory" not in text:
            raise
        video, words = batch.inputs.video, batch.inputs.words
        raise MesmError(
            f"Out of memory on a batch of {count(len(batch.queries), 'query')} about {count(len(video), 'video')} "
            f"of up to {video.shape[1]} frames, with up to {words.shape[1]} words. The last checkpoint is intact.",
            hint="Lower train.batch_size, dataset.max_gather_size (queries a group) or dataset.max_frames; "
            "--precision bf16 takes less, too.",
        ) from error
