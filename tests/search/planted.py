"""Helpers: an index of videos in which a few seconds lean to the vector of a sentence, and the encoder of sentences."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mesm_core.extraction.parts import Parts
from mesm_core.inference.answers import Answer, VideoQueries
from mesm_core.metrics.nms import PEOPLE_NMS
from mesm_core.search import Index
from mesm_core.search.index import FEATURES
from mesm_core.search.segments import pool_segments
from mesm_core.search.writer import changing
from tests.planted_frames import unit
from tests.search.made import EMPTY, WIDTH, indexed

MOMENTS = {
    "a door opens": ("kitchen", 12.0, 20.0),
    "a dog jumps": ("beach", 40.0, 46.0),
    "rain falls": ("street", 3.0, 9.0),
}
LENGTHS = {"kitchen": 31, "beach": 90, "street": 25, "office": 40}


class Sentences:
    """Encodes each sentence as a fixed random vector."""

    width = WIDTH

    def embed(self, sentences: Sequence[str]) -> np.ndarray:
        return np.stack([vector_of(sentence) for sentence in sentences])


def vector_of(sentence: str) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(sentence.encode()))
    return unit(rng.normal(size=WIDTH)).astype(np.float32)


def planted_rows(video: str, length: int) -> np.ndarray:
    """Return rows of 1 s that lean to the sentence of the video's moment while it lasts."""
    rng = np.random.default_rng(length)
    rows = unit(rng.normal(size=WIDTH)) + 0.3 * unit(rng.normal(size=(length, WIDTH)))
    for sentence, (where, start, end) in [*MOMENTS.items(), ("a door opens", ("garage", 4.0, 12.0))]:
        if where == video:
            rows[int(start) : int(end)] += 1.5 * vector_of(sentence)
    return rows.astype(np.float32)


def planted_index(path: Path, *, lengths: Mapping[str, int] = LENGTHS, paths: Mapping[str, Path] = {}) -> Index:
    """Return an index of the planted videos, made in ``path``."""
    return index_of(path, {video: planted_rows(video, length) for video, length in lengths.items()}, paths=paths)


def index_of(path: Path, videos: Mapping[str, np.ndarray], *, paths: Mapping[str, Path] = {}) -> Index:
    """Return an index of videos with these rows of 1 s, made in ``path``."""
    with changing(path, EMPTY) as writer:
        for video, rows in videos.items():
            length = len(rows)
            segments = pool_segments(rows, clip_len=1.0, duration=float(length))
            Parts(path / FEATURES).write(video, rows.astype(np.float16), {"duration": float(length)})
            entry = indexed(video, segments, length, path=paths.get(video))
            writer.add(replace(entry, mtime=int(1e9 * length)), segments)
        writer.commit()
    return Index.open(path)


class Halves:
    """A calibrated model that answers with the first half and the second half of what it sees.

    The confidence of the first half is the share of rows that lean to the sentence; that of the second is half of it.
    """

    calibrated = True

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def locate_many(self, asked: Sequence[VideoQueries], *, nms: float = PEOPLE_NMS) -> list[list[Answer]]:
        answers = []
        for video in asked:
            (rows,) = video.features
            self.seen.append((len(rows), video.duration))
            half, (query,) = video.duration / 2, video.queries
            sure = float((unit(rows) @ vector_of(query) > 0.5).mean())
            windows = np.array([[0.0, half, 0.9], [half, video.duration, 0.1]])
            answers.append([Answer(query, windows, np.zeros(0, np.float32), video.duration, confidence=sure,
                                   confidences=np.array([sure, sure / 2]))])  # fmt: skip
        return answers
