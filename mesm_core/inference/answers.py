"""What is asked about a video, and what the answer to a query holds; the same for every retriever. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mesm_core.errors import DataError, TextError
from mesm_core.inference.windows import Window, shortest
from mesm_core.inputs import has_surrogates, printable
from mesm_core.metrics.nms import NO_NMS, check_nms, temporal_nms
from mesm_core.types import Prediction

MOST_WORDS = 500
Features = np.ndarray | Sequence[np.ndarray]
"""A video's frames (L, D), or one array of frames a feature file, in the order they are joined."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a sentence happens: ``start`` and ``end`` in seconds, ``score`` in [0, 1]."""

    start: float
    end: float
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found for a query.

    ``moments``: by falling score; ``saliency`` (frames,) float32: a ranking score of each frame the model saw;
    ``seen``: seconds, from the video's start, that these frames cover; ``unknown_words``: words of the query that the
    text encoder has no vector for; ``all_words_unknown``: it has none for any of them, so the answer means nothing;
    ``warnings``: what a person should know before trusting the answer, in words; ``window``: seconds of each window of
    a video that was answered in overlapping windows, or None where it was seen at once.
    """

    query: str
    moments: tuple[Moment, ...]
    saliency: np.ndarray
    seen: float
    unknown_words: tuple[str, ...] = ()
    all_words_unknown: bool = False
    warnings: tuple[str, ...] = ()
    window: float | None = None

    def prediction(self, qid: int | str | None, vid: str) -> Prediction:
        """Return the answer as a line of a submission file."""
        rows = np.array([[m.start, m.end, m.score] for m in self.moments]).reshape(-1, 3)
        return Prediction(qid, self.query, vid, rows, self.saliency)

    def as_json(self, top: int | None = None) -> dict[str, Any]:
        """Return the ``top`` moments, default all, and the rest as JSON-able values."""
        return {
            "seen": self.seen,
            "window": self.window,
            "moments": [{"start": m.start, "end": m.end, "score": m.score} for m in self.moments[:top]],
            "saliency": self.saliency.tolist(),
            "unknown_words": list(self.unknown_words),
            "all_words_unknown": self.all_words_unknown,
            "warnings": list(self.warnings),
        }

    def suppressed(self, nms: float) -> Answer:
        """Return the answer without moments that overlap a better one by more than ``nms``; -1 keeps all.

        Raises:
            ConfigError: ``nms`` is neither in (0, 1] nor -1.
        """
        if check_nms(nms) == NO_NMS:
            return self
        windows = np.array([[m.start, m.end, m.score] for m in self.moments]).reshape(-1, 3)
        kept = temporal_nms(windows, threshold=nms).tolist()
        # NMS finds no overlap of moments without length, though they may be equal.
        first: dict[tuple[float, float], Moment] = {}
        for start, end, score in kept:
            first.setdefault((start, end), Moment(start, end, score))
        return replace(self, moments=tuple(first.values()))


@dataclass(frozen=True)
class Asked:
    """A video and what is asked about it."""

    features: Features
    queries: Sequence[str]
    duration: float

    @property
    def frames(self) -> int:
        """How many frames the video has; those of the shortest file where there are several."""
        return shortest(parts_of(self.features))


def about_one_video(
    locate_many: Callable[..., list[list[Answer]]],
    asked: Asked,
    *,
    independent: bool,
    nms: float,
    window: Window,
) -> list[Answer]:
    """Return the answers about one video, one a query, from a retriever's ``locate_many``.

    Args:
        independent: ask each query as if it were the only one.
    """
    groups = [replace(asked, queries=[query]) for query in asked.queries] if independent else [asked]
    return [answer for answers in locate_many(groups, nms=nms, window=window) for answer in answers]


def parts_of(features: Features) -> list[np.ndarray]:
    """Return the frames of each feature file, also where there is one."""
    return [features] if isinstance(features, np.ndarray) else list(features)


def refuse_what_cannot_be_asked(asked: Asked) -> None:
    """Raise TextError where the queries, DataError where the duration cannot be meant."""
    if not asked.queries:
        raise TextError("No query was given.", hint='Put one in quotes: "a person opens the door".')
    for query in asked.queries:
        if has_surrogates(query):
            raise TextError(f"The query '{printable(query[:40])}' is not UTF-8 text.")
        words = len(query.split())
        if words > MOST_WORDS:
            raise TextError(
                f"The query '{query[:40]}…' has {words:,} words; models read the first few dozen at most.",
                hint="Describe one moment in a sentence.",
            )
    if not asked.duration > 0 or not np.isfinite(asked.duration):
        raise DataError(f"The duration is {asked.duration:g} seconds; it must be positive.")
