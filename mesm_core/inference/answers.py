"""Queries about a video and their answers, shared by all retrievers. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mesm_core.confidence.calibration import check_confidence, not_calibrated
from mesm_core.errors import DataError, TextError
from mesm_core.inference.windows import Window, shortest
from mesm_core.inputs import has_surrogates, printable
from mesm_core.metrics.nms import NO_NMS, check_nms, kept_rows
from mesm_core.types import Prediction

MOST_WORDS = 500
Features = np.ndarray | Sequence[np.ndarray]
"""A video's frames (L, D), or one array of frames per feature file, in the order of concatenation."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment that matches a query: ``start`` and ``end`` in seconds, ``score`` in [0, 1].

    ``confidence``: P(IoU with the described moment >= 0.5), or None if the model has no calibration.
    """

    start: float
    end: float
    score: float
    confidence: float | None = None

    def as_json(self) -> dict[str, float | None]:
        """Return the moment as JSON-able values."""
        return {"start": self.start, "end": self.end, "score": self.score, "confidence": self.confidence}


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a query.

    ``windows`` (N, 3) float64: start, end and score of each moment, by decreasing score; ``saliency`` (frames,)
    float32: a ranking score of each frame the model saw; ``seen``: seconds, from the start of the video, that these
    frames cover; ``unknown_words``: words of the query without a vector in the text encoder; ``all_words_unknown``:
    True if no word has a vector, which makes the answer meaningless; ``warnings``: texts for the user; ``window``:
    seconds of each overlapping window of the video, or None if the video was processed at once; ``confidence``:
    P(there is an answer to the query in the video), ``confidences`` (N,): that of each moment, both None if the model
    has no calibration; ``rejected``: the moment of highest confidence, if ``confident`` has dropped all moments.
    """

    query: str
    windows: np.ndarray
    saliency: np.ndarray
    seen: float
    unknown_words: tuple[str, ...] = ()
    all_words_unknown: bool = False
    warnings: tuple[str, ...] = ()
    window: float | None = None
    confidence: float | None = None
    confidences: np.ndarray | None = None
    rejected: Moment | None = None

    @property
    def moments(self) -> tuple[Moment, ...]:
        """The moments by decreasing score."""
        sure = [None] * len(self.windows) if self.confidences is None else self.confidences.tolist()
        rows = zip(self.windows.tolist(), sure, strict=True)
        return tuple(Moment(start, end, score, confidence) for (start, end, score), confidence in rows)

    def prediction(self, qid: int | str | None, vid: str) -> Prediction:
        """Return the answer as a line of a submission file, with the confidence of its first moment."""
        sure = None
        if self.confidences is not None:
            sure = float(self.confidences[0]) if len(self.confidences) else 0.0
        return Prediction(qid, self.query, vid, self.windows, self.saliency, confidence=sure)

    def as_json(self, top: int | None = None) -> dict[str, Any]:
        """Return the answer as JSON-able values, with the ``top`` moments (default: all)."""
        return {
            "seen": self.seen,
            "window": self.window,
            "confidence": self.confidence,
            "moments": [moment.as_json() for moment in self.moments[:top]],
            "rejected": None if self.rejected is None else self.rejected.as_json(),
            "saliency": self.saliency.tolist(),
            "unknown_words": list(self.unknown_words),
            "all_words_unknown": self.all_words_unknown,
            "warnings": list(self.warnings),
        }

    def suppressed(self, nms: float) -> Answer:
        """Return the answer after temporal NMS with the IoU threshold ``nms``; -1 keeps all moments.

        Raises:
            ConfigError: ``nms`` is neither in (0, 1] nor -1.
        """
        if check_nms(nms) == NO_NMS:
            return self
        kept = kept_rows(self.windows, threshold=nms)
        # Moments of zero length have no overlap, so NMS does not remove their duplicates.
        _, first = np.unique(self.windows[kept, :2], axis=0, return_index=True)
        return self._with_rows(kept[np.sort(first)])

    def confident(self, least: float) -> Answer:
        """Return the answer with the moments that have at least the confidence ``least``.

        If there is none, ``rejected`` is the moment of highest confidence.

        Raises:
            ConfigError: ``least`` is not in [0, 1], or the model has no calibration.
        """
        check_confidence(least)
        if self.confidences is None:
            raise not_calibrated()
        kept = np.flatnonzero(self.confidences >= least)
        best = None if len(kept) or not len(self.windows) else self.moments[int(self.confidences.argmax())]
        return replace(self._with_rows(kept), rejected=best)

    def _with_rows(self, rows: np.ndarray) -> Answer:
        confidences = None if self.confidences is None else self.confidences[rows]
        return replace(self, windows=self.windows[rows], confidences=confidences)


@dataclass(frozen=True)
class VideoQueries:
    """The features of a video and the queries about it."""

    features: Features
    queries: Sequence[str]
    duration: float

    @property
    def frames(self) -> int:
        """Number of frames of the video, which is that of its shortest feature file."""
        return shortest(parts_of(self.features))


def locate_one(
    locate_many: Callable[..., list[list[Answer]]],
    asked: VideoQueries,
    *,
    independent: bool,
    nms: float,
    window: Window,
) -> list[Answer]:
    """Return one answer per query about one video, from a retriever's ``locate_many``.

    Args:
        independent: answer each query as if it were the only one.
    """
    groups = [replace(asked, queries=[query]) for query in asked.queries] if independent else [asked]
    return [answer for answers in locate_many(groups, nms=nms, window=window) for answer in answers]


def parts_of(features: Features) -> list[np.ndarray]:
    """Return the frames as a list with one array per feature file."""
    return [features] if isinstance(features, np.ndarray) else list(features)


def refuse_invalid_queries(asked: VideoQueries) -> None:
    """Raise TextError if a query is invalid or there is none, and DataError if the duration is not positive."""
    if not asked.queries:
        raise TextError("No query was given.", hint='Put one in quotes: "a person opens the door".')
    for query in asked.queries:
        if has_surrogates(query):
            raise TextError(f"The query '{printable(query[:40])}' is not UTF-8 text.")
        words = len(query.split())
        if words > MOST_WORDS:
            raise TextError(
                f"The query '{query[:40]}…' has {words:,} words; models read at most a few dozen.",
                hint="Describe one moment in a sentence.",
            )
    if not asked.duration > 0 or not np.isfinite(asked.duration):
        raise DataError(f"The duration is {asked.duration:g} seconds; it must be positive.")
