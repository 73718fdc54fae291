"""Helpers: indexes of invented vectors, and exact search written plainly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mesm_core.extraction.parts import Parts
from mesm_core.search.engines import new_state
from mesm_core.search.index import FEATURES, Index
from mesm_core.search.manifest import IndexedVideo, Kept, Manifest, Network
from mesm_core.search.segments import Segments, pool_segments
from mesm_core.search.writer import changing

WIDTH = 32
NETWORK = Network("clip-b32", "ab" * 16, WIDTH)
EMPTY = Manifest((NETWORK,), "1", "bilinear", "float16", 8.0, 0.5, "exact", new_state("exact", None))


def rows_of(video: str, length: int = 40, *, width: int = WIDTH) -> np.ndarray:
    """Return the invented features (length, width) of a video."""
    seed = int.from_bytes(video.encode(), "little") % 2**32
    return np.random.default_rng(seed).normal(size=(length, width)).astype(np.float32)


def indexed(video: str, segments: Segments, length: int, *, path: Path | None = None) -> IndexedVideo:
    """Return the entry of a video whose features are kept under its id."""
    where = path or Path(f"/videos/{video}.mp4")
    kept = (Kept("clip-b32", video),)
    return IndexedVideo(video, where, video, video * 4, 1, 2, float(length), 1.0, len(segments), "2026-01-01", kept)


def put(path: Path, *videos: str, length: int = 40, manifest: Manifest = EMPTY) -> dict[str, Segments]:
    """Add videos to an index, which is made if it does not exist; return their segments."""
    made = {}
    with changing(path, manifest) as writer:
        for video in videos:
            rows = rows_of(video, length)
            made[video] = pool_segments(rows, clip_len=1.0, duration=float(length))
            Parts(path / FEATURES).write(video, rows.astype(np.float16), {"duration": float(length)})
            writer.add(indexed(video, made[video], length), made[video])
        writer.commit()
    return made


def best(vectors: Mapping[str, Segments], query: np.ndarray, top: int) -> list[float]:
    """Return the largest float32 products of a query of length 1 with the vectors."""
    unit = query / np.linalg.norm(query)
    products = np.concatenate([each.vectors.astype(np.float32) @ unit for each in vectors.values()])
    return sorted(products.tolist(), reverse=True)[:top]


def content(index: Index) -> dict[str, tuple[bytes, bytes]]:
    """Return the vectors and spans of an index, by video."""
    return {video: (each.vectors.tobytes(), each.spans.tobytes()) for video, each in index.engine.vectors()}
