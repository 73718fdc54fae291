"""CLIP as a retriever: the moments that ``zero_shot`` finds in image features, behind the trained model's interface.

It imports no torch: only encoding a sentence needs the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from mesm_core.data.features import prepare_frames
from mesm_core.errors import FeatureError
from mesm_core.inference.answers import (
    Answer,
    Asked,
    Features,
    Moment,
    about_one_video,
    parts_of,
    refuse_what_cannot_be_asked,
)
from mesm_core.inference.windows import AUTO, Window
from mesm_core.inference.zero_shot import find_moments
from mesm_core.metrics.nms import PEOPLE_NMS, check_nms

ZERO_SHOT = "zero-shot"
"""What stands for this retriever where a checkpoint is expected."""
UNTRAINED = (
    "Zero-shot: CLIP alone, never trained on moments; a score says how far a moment stands out in its own video."
)
NOTHING = "no part of the video is more like the query than the rest, so the whole video is the answer"


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


class ZeroShotRetriever:
    """Answers queries with CLIP alone, never trained on moments; a baseline, and a first look at one's own videos.

    Of a video's feature files it takes the first that is as wide as CLIP's joint space (512 for ViT-B/32) and leaves
    out the others, which no sentence can be compared with. The features must be projected image embeddings of the same
    CLIP model as the text weights, as ``--backbone clip-b32`` extracts; the width is all that can be checked. A
    video's frames are taken as evenly spread over it; long videos are neither shortened nor cut. The answer to a query
    does not depend on the others.

    Args:
        sentences: encodes queries into the joint space.
    """

    def __init__(self, sentences: Sentences) -> None:
        self.sentences = sentences

    @classmethod
    def load(cls, clip: Path | str, *, device: str = "auto") -> ZeroShotRetriever:
        """Return the retriever of CLIP's text weights.

        Args:
            clip: a whole CLIP model, or what ``mesm prepare clip-text`` wrote of one.

        Raises:
            TextError: the weights cannot be used, or have no text projection; DeviceError: the device is not there.
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
        """Return one answer a query, in order.

        Args:
            features: frames (L, D) of one feature file, or a list of several files'.
            queries: sentences; duration: the video's length in seconds.
            independent, window: change nothing: queries are answered independently, and all of a video is seen.
            nms: moments that overlap a better one by more are left out. Near-duplicates never occur, so values above
                0.7 and -1 keep all.

        Raises:
            TextError: a query is empty or as long as a book, or there is none; FeatureError: no features are as wide
            as the joint space, or they are damaged; DataError: the duration is not positive; ConfigError: ``nms`` is
            neither in (0, 1] nor -1.
        """
        asked = Asked(features, queries, duration)
        return about_one_video(self.locate_many, asked, independent=independent, nms=nms, window=window)

    def locate_many(
        self, asked: Sequence[Asked], *, nms: float = PEOPLE_NMS, window: Window = AUTO
    ) -> list[list[Answer]]:
        """Return the answers about many videos, a list a video, in order.

        Raises:
            The same as ``locate``.
        """
        check_nms(nms)
        return [[answer.suppressed(nms) for answer in self._about(video)] for video in asked]

    def _about(self, video: Asked) -> list[Answer]:
        refuse_what_cannot_be_asked(video)
        frames = self._frames(video.features)
        windows, saliency = find_moments(frames, self.sentences.embed(video.queries), video.duration)
        return [
            Answer(
                query=query,
                moments=tuple(Moment(*row) for row in rows.tolist()),
                saliency=scores,
                seen=video.duration,
                warnings=(NOTHING,) if not rows[0, 2] > 0 else (),
            )
            for query, rows, scores in zip(video.queries, windows, saliency, strict=True)
        ]

    def _frames(self, features: Features) -> np.ndarray:
        """Return the frames (L, D) float32 of length 1 that sentences can be compared with."""
        parts, width = parts_of(features), self.sentences.width
        fitting = [part for part in parts if part.ndim == 2 and part.shape[1] == width]
        if not fitting:
            raise no_clip_features(" and ".join(str(part.shape[-1]) if part.ndim else "0" for part in parts), width)
        chosen = fitting[0]
        return prepare_frames(
            [chosen], dim=width, max_frames=max(len(chosen), 1), shorten="first", where="The video's features"
        )


def no_clip_features(widths: str, width: int) -> FeatureError:
    """Return what to tell where no features are as wide as the joint space."""
    return FeatureError(
        f"The features are {widths} wide; zero-shot needs CLIP image features, {width} wide as the text projection.",
        hint="Give them with --features FILE, and with --clip FILE the text weights of the same CLIP model.",
    )
