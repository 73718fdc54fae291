"""What can go wrong in a step, told as it concerns the user: a loss that is not finite, memory that ran out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from mesm_core.errors import MesmError, count
from mesm_core.types import Batch, ModelOutput


class NotFiniteError(MesmError):
    """The loss is NaN or infinite; ``batch`` is the one it happened in, ``vids`` the videos to blame."""

    def __init__(self, batch: Batch, output: ModelOutput, *, epoch: int, step: int, value: float) -> None:
        frames, spans = torch.isfinite(output.saliency), torch.isfinite(output.spans[-1]).flatten(1)
        finite = (frames.all(dim=1) & spans.all(dim=1)).tolist()
        blamed = [query.vid for query, good in zip(batch.queries, finite, strict=True) if not good]
        self.batch = batch
        self.vids = list(dict.fromkeys(blamed or [query.vid for query in batch.queries]))
        super().__init__(
            f"The loss is {value} in epoch {epoch + 1}, step {step + 1} (videos {', '.join(self.vids)}).",
            hint="Lower the learning rate (--set train.lr=…), or check these videos' features.",
        )


@dataclass(frozen=True)
class _Seen:
    """A loss on its way to the host, and where it comes from."""

    value: Tensor
    event: torch.cuda.Event
    batch: Batch
    output: ModelOutput
    epoch: int
    step: int


class FiniteWatch:
    """Sees that losses are finite without making the device wait: on CUDA each is read when the next one is seen."""

    def __init__(self, device: torch.device) -> None:
        self._late = device.type == "cuda"
        self._before: _Seen | None = None

    def see(self, loss: Tensor, batch: Batch, output: ModelOutput, *, epoch: int, step: int) -> None:
        """Check a loss, or on CUDA the one before it.

        Raises:
            NotFiniteError: it is not finite.
        """
        if not self._late:
            _refuse(loss.item(), batch, output, epoch, step)
            return
        host = torch.empty((), pin_memory=True)
        host.copy_(loss.detach(), non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self.finish()
        self._before = _Seen(host, event, batch, output, epoch, step)

    def finish(self) -> None:
        """Check the loss that was not checked yet.

        Raises:
            NotFiniteError: it is not finite.
        """
        seen, self._before = self._before, None
        if seen is not None:
            seen.event.synchronize()
            _refuse(seen.value.item(), seen.batch, seen.output, seen.epoch, seen.step)


def _refuse(value: float, batch: Batch, output: ModelOutput, epoch: int, step: int) -> None:
    if not math.isfinite(value):
        raise NotFiniteError(batch, output, epoch=epoch, step=step, value=value)


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
