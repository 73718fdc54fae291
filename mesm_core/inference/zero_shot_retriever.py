"""CLIP as a zero-shot retriever, with the interface of the trained model.

Imports no torch: only encoding a sentence needs the network.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np

from mesm_core.data.features import prepare_frames
from mesm_core.errors import FeatureError
from mesm_core.inference.answers import (
    Answer,
    Features,
    VideoQueries,
    locate_one,
    parts_of,
    refuse_invalid_queries,
)
from mesm_core.inference.windows import AUTO, Window
from mesm_core.inference.zero_shot import find_moments, spans_of
from mesm_core.metrics.nms import PEOPLE_NMS, check_nms

ZERO_SHOT = "zero-shot"
"""Name of this retriever in place of the path of a checkpoint."""
UNTRAINED = (
    "Zero-shot: CLIP alone, never trained on moments; a score says how much a moment stands out in its own video."
)
KEPT_BYTES = 64_000_000
"""Limit of the candidate spans that are kept in memory."""
NO_MATCH = "no part of the video matches the query better than the rest, so the whole video is returned"


class Sentences(Protocol):
    """Encodes sentences into the space that they share with images."""

    @property
    def width(self) -> int:
        """Width of the joint space."""
        ...

    def embed(self, sentences: Sequence[str]) -> np.ndarray:
        """Return (n, width) float32 embeddings of length 1.

        Raises:
            TextError: a sentence is empty, or the weights cannot be used.
        """
        ...


class _KeptSpans:
    """Candidate spans of the videos that were asked last. Finding them takes longer than all else about a query."""

    def __init__(self) -> None:
        self._spans: OrderedDict[tuple[bytes, float], np.ndarray] = OrderedDict()
        self._lock = Lock()

    def of(self, frames: np.ndarray, duration: float) -> np.ndarray:
        """Return ``spans_of`` the frames."""
        key = (hashlib.blake2b(np.ascontiguousarray(frames).data, digest_size=16).digest(), duration)
        with self._lock:
            found = self._spans.get(key)
        if found is None:
            found = spans_of(frames, duration)
        with self._lock:
            self._spans[key] = found
            self._spans.move_to_end(key)
            while len(self._spans) > 1 and sum(spans.nbytes for spans in self._spans.values()) > KEPT_BYTES:
                self._spans.popitem(last=False)
        return found


class ZeroShotRetriever:
    """Answers queries with CLIP, without training on moments; a baseline.

    Uses a video's first feature file with the width of CLIP's joint space (512 for ViT-B/32) and ignores the others.
    The features must be projected image embeddings of the same CLIP model as the text weights, as extracted by
    ``--backbone clip-b32``; only the width can be checked. The frames are assumed to be evenly spread over the video;
    long videos are neither shortened nor divided. Queries are answered independently.

    Args:
        sentences: encodes queries into the joint space.
    """

    def __init__(self, sentences: Sentences) -> None:
        self.sentences = sentences
        self._spans = _KeptSpans()

    @property
    def calibrated(self) -> bool:
        """Whether answers have a confidence: never, since nothing was trained."""
        return False

    @classmethod
    def load(cls, clip: Path | str, *, device: str = "auto") -> ZeroShotRetriever:
        """Return the retriever of CLIP's text weights.

        Args:
            clip: a whole CLIP model, or the output of ``mesm prepare clip-text``.

        Raises:
            TextError: the weights cannot be used, or have no text projection; DeviceError: the device is not available.
        """
        from mesm_core.build import build_device, build_sentences

        return cls(build_sentences(Path(clip), device=build_device(device)))

    def locate(
        self,
        features: Features,
        queries: Sequence[str],
        *,
        duration: float,
        independent: bool = False,
        nms: float = PEOPLE_NMS,
        window: Window = AUTO,
    ) -> list[Answer]:
        """Return one answer per query, in order.

        Args:
            features: frames (L, D) of one feature file, or a list of those of several files.
            queries: sentences; duration: the video's length in seconds.
            independent, window: no effect; queries are always independent, and videos are never divided.
            nms: IoU threshold of temporal NMS. Moments never overlap by more than 0.7, so larger values keep all.

        Raises:
            TextError: a query is empty or too long, or there is none; FeatureError: no features are as wide
            as the joint space, or they are damaged; DataError: the duration is not positive; ConfigError: ``nms`` is
            neither in (0, 1] nor -1.
        """
        asked = VideoQueries(features, queries, duration)
        return locate_one(self.locate_many, asked, independent=independent, nms=nms, window=window)

    def locate_many(
        self, asked: Sequence[VideoQueries], *, nms: float = PEOPLE_NMS, window: Window = AUTO
    ) -> list[list[Answer]]:
        """Return one list of answers per video, in order.

        Raises:
            The same as ``locate``.
        """
        check_nms(nms)
        return [[answer.suppressed(nms) for answer in self._answers(video)] for video in asked]

    def _answers(self, video: VideoQueries) -> list[Answer]:
        refuse_invalid_queries(video)
        frames = self._frames(video.features)
        windows, saliency = find_moments(
            frames, self.sentences.embed(video.queries), video.duration, self._spans.of(frames, video.duration)
        )
        return [
            Answer(
                query=query,
                windows=rows,
                saliency=scores,
                seen=video.duration,
                warnings=(NO_MATCH,) if not rows[0, 2] > 0 else (),
            )
            for query, rows, scores in zip(video.queries, windows, saliency, strict=True)
        ]

    def _frames(self, features: Features) -> np.ndarray:
        """Return the frames (L, D) float32 of unit norm from the feature file in the joint space."""
        parts, width = parts_of(features), self.sentences.width
        fitting = [part for part in parts if part.ndim == 2 and part.shape[1] == width]
        if not fitting:
            raise no_clip_features(" and ".join(str(part.shape[-1]) if part.ndim else "0" for part in parts), width)
        chosen = fitting[0]
        return prepare_frames(
            [chosen], dim=width, max_frames=max(len(chosen), 1), shorten="first", where="The video's features"
        )


def no_clip_features(widths: str, width: int) -> FeatureError:
    """Return the error for features that do not have the width of the joint space."""
    return FeatureError(
        f"The features are {widths} wide; zero-shot needs CLIP image features, {width} wide like the text projection.",
        hint="Give them with --features FILE, and the text weights of the same CLIP model with --clip FILE.",
    )
