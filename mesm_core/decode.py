"""Decoding of the model's outputs to moments in seconds (docs/model.md, "From outputs to moments")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mesm_core.devices import HostCopy
from mesm_core.errors import CheckpointError
from mesm_core.losses.spans import to_windows
from mesm_core.types import Batch, ModelOutput, Prediction

DECIMALS = 4


@dataclass(frozen=True)
class Decoding:
    """How windows are clamped and rounded.

    ``max_time``: as in the published code, windows are clamped to [0, max_time] seconds, or to [0, duration] if the
    video is longer; None clamps them to the part of the video that the frames cover.
    ``clip_len``: if positive, start and end are rounded to multiples of it.
    """

    max_time: float | None
    clip_len: float = -1


def decode(
    output: ModelOutput,
    batch: Batch,
    decoding: Decoding,
    *,
    seen: Sequence[float] | None = None,
    starts: Sequence[float] | None = None,
) -> list[Prediction]:
    """Return one prediction per query, in the order of the batch, with the windows of all slots by falling score.

    Args:
        batch: on the host.
        seen: seconds of video that the frames of each query cover; default: the duration.
        starts: second of the video at which the frames of each query start; default: 0.

    Raises:
        CheckpointError: scores or windows are NaN or infinite.
    """
    return Decoded(output, decoding).predictions(batch, seen=seen, starts=starts)


class Decoded:
    """A batch's predictions, being copied to the host; the device may compute the next batch meanwhile."""

    def __init__(self, output: ModelOutput, decoding: Decoding) -> None:
        self._decoding = decoding
        scores = output.logits[-1].softmax(dim=-1)[..., 0].float()  # (Q, N)
        windows = to_windows(output.spans[-1].float())  # (Q, N, 2)
        saliency = output.saliency.to(torch.float16).float()  # (Q, T)
        self._shapes = [x.shape for x in (scores, windows, saliency)]
        self._values = HostCopy(torch.cat([x.flatten() for x in (scores, windows, saliency)]))

    def predictions(
        self, batch: Batch, *, seen: Sequence[float] | None = None, starts: Sequence[float] | None = None
    ) -> list[Prediction]:
        """Wait for the copy, and return the same as ``decode``. batch: on the host."""
        values = torch.split(self._values.wait(), [shape.numel() for shape in self._shapes])
        scores, spans, saliency = (x.view(s).numpy() for x, s in zip(values, self._shapes, strict=True))
        return _predictions(scores, spans.astype(np.float64), saliency, batch, self._decoding, seen=seen, starts=starts)


def _predictions(
    scores: np.ndarray,
    spans: np.ndarray,
    saliency: np.ndarray,
    batch: Batch,
    decoding: Decoding,
    *,
    seen: Sequence[float] | None,
    starts: Sequence[float] | None,
) -> list[Prediction]:
    if not (np.isfinite(scores).all() and np.isfinite(spans).all()):
        raise CheckpointError(
            "The model's outputs contain NaN or infinity.",
            hint="Its weights or the features are damaged or extreme: check them, or use another checkpoint.",
        )
    mask = batch.inputs.frames_mask.numpy()
    covered = [query.duration for query in batch.queries] if seen is None else seen
    first = [0.0] * len(batch.queries) if starts is None else starts
    return [
        Prediction(
            qid=query.qid,
            query=query.sentence,
            vid=query.vid,
            windows=_ranked(
                spans[row] * covered[row] + first[row],
                scores[row],
                decoding,
                duration=query.duration,
                seen=(first[row], min(first[row] + covered[row], query.duration)),
            ),
            saliency=saliency[row][mask[row]],
        )
        for row, query in enumerate(batch.queries)
    ]


def _ranked(
    windows: np.ndarray, scores: np.ndarray, decoding: Decoding, *, duration: float, seen: tuple[float, float]
) -> np.ndarray:
    first, last = seen if decoding.max_time is None else (0.0, max(decoding.max_time, duration))
    order = np.argsort(-scores, kind="stable")
    windows = np.clip(np.round(windows[order], DECIMALS), first, last)
    if decoding.clip_len > 0:
        # Round again, because 3 · 0.17 is 0.51000000000000001 in floating point.
        windows = np.round(np.round(windows / decoding.clip_len) * decoding.clip_len, DECIMALS)
        if last <= duration:  # as published, rounding may exceed a max_time that is after the end of the video
            windows = np.minimum(windows, last)
    return np.concatenate([windows, np.round(scores[order].astype(np.float64), DECIMALS)[:, None]], axis=1)
