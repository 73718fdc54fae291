"""The interface of retrievers, trained or zero-shot, that evaluation and prediction use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from mesm_core.inference.answers import Answer, Features, VideoQueries
from mesm_core.inference.windows import Window
from mesm_core.metrics.nms import NO_NMS
from mesm_core.types import Prediction, Query


class Retriever(Protocol):
    """Answers queries about videos."""

    @property
    def calibrated(self) -> bool:
        """Whether answers have a confidence."""
        ...

    def locate(
        self,
        features: Features,
        queries: Sequence[str],
        *,
        duration: float,
        independent: bool = ...,
        nms: float = ...,
        window: Window = ...,
    ) -> list[Answer]:
        """Return one answer per query, in order, about a video of ``duration`` seconds."""
        ...

    def locate_many(
        self, asked: Sequence[VideoQueries], *, nms: float = ..., window: Window = ...
    ) -> list[list[Answer]]:
        """Return one list of answers per video, in order; ``nms`` = -1 keeps all moments."""
        ...


class VideoFeatures(Protocol):
    """Source of the frames of videos."""

    def require(self, vids: Iterable[str], *, skippable: bool = True) -> None:
        """Raise FeatureError if a video is missing."""
        ...

    def raw(self, vid: str) -> list[np.ndarray]:
        """Return a video's frames as stored, one (L, D) array per file."""
        ...

    def duration(self, vid: str) -> float | None:
        """Return the duration in seconds that is stored with a video's frames, or None."""
        ...


def predict_queries(
    retriever: Retriever,
    queries: Sequence[Query],
    features: VideoFeatures,
    *,
    progress: Callable[[int], None] | None = None,
) -> list[Prediction]:
    """Return one prediction per query, in order; each video's frames are read once.

    Args:
        progress: called with the number of queries answered, after each video.
    """
    by_video: dict[tuple[str, float], list[int]] = {}
    for number, query in enumerate(queries):
        by_video.setdefault((query.vid, query.duration), []).append(number)
    found: dict[int, Prediction] = {}
    for (vid, duration), numbers in by_video.items():
        asked = VideoQueries(features.raw(vid), [queries[number].sentence for number in numbers], duration)
        (answers,) = retriever.locate_many([asked], nms=NO_NMS)
        found |= {n: a.prediction(queries[n].qid, vid) for n, a in zip(numbers, answers, strict=True)}
        if progress is not None:
            progress(len(numbers))
    return [found[number] for number in range(len(queries))]
