"""The state of an index: its size, its damage, and videos that were deleted or changed since they were added."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mesm_core.errors import MesmError
from mesm_core.inputs import file_size
from mesm_core.search.index import FEATURES, Index, read_kept
from mesm_core.search.manifest import IndexedVideo


@dataclass(frozen=True, slots=True)
class Stats:
    """The size of an index and its settings.

    ``hours``: of video; ``segments``: their number; ``vector_bytes``: 0 if the engine does not say; ``feature_bytes``:
    of the features kept in the index; ``missing``, ``changed``: videos whose files were deleted or changed since.
    """

    index: Index
    hours: float
    segments: int
    vector_bytes: int
    feature_bytes: int
    missing: tuple[IndexedVideo, ...]
    changed: tuple[IndexedVideo, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the figures as JSON-able values."""
        manifest = self.index.manifest
        return {
            "index": str(self.index.path),
            "generation": manifest.generation,
            "backbones": [
                {"name": network.name, "weights": network.weights, "width": network.width}
                for network in manifest.networks
            ],
            "clip_len": manifest.clip_len,
            "segment_seconds": manifest.seconds,
            "overlap": manifest.overlap,
            "engine": manifest.engine,
            "uri": manifest.state.get("uri"),
            "videos": len(manifest.videos),
            "hours": self.hours,
            "segments": self.segments,
            "vector_bytes": self.vector_bytes,
            "feature_bytes": self.feature_bytes,
            "missing": listed(self.missing),
            "changed": listed(self.changed),
        }


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of a verification.

    ``problems``: damage of the index; ``missing``, ``changed``: videos whose files were deleted or changed since;
    ``unused``: number of stored features of videos that are not in the index, and ``unlisted``: number of videos whose
    segments are in the engine but not in the index; both are left by a build that did not end, and do no harm.
    """

    problems: tuple[str, ...]
    missing: tuple[IndexedVideo, ...]
    changed: tuple[IndexedVideo, ...]
    unused: int
    unlisted: int

    def as_json(self) -> dict[str, Any]:
        """Return the findings as JSON-able values."""
        return {
            "problems": list(self.problems),
            "missing": listed(self.missing),
            "changed": listed(self.changed),
            "unused_features": self.unused,
            "unused_videos": self.unlisted,
        }


def listed(videos: Sequence[IndexedVideo]) -> list[dict[str, str]]:
    """Return videos as JSON-able values."""
    return [{"id": video.id, "name": video.name, "path": str(video.path)} for video in videos]


def statistics(index: Index) -> Stats:
    """Return the size of an index and the state of its videos' files; reads no vectors."""
    videos = list(index.videos.values())
    missing, changed = source_states(videos)
    folder = index.path / FEATURES
    kept = {kept.file for video in videos for kept in video.kept if kept.dataset is None}
    return Stats(
        index=index,
        hours=sum(video.duration for video in videos) / 3600,
        segments=sum(video.segments for video in videos),
        vector_bytes=index.engine.size(),
        feature_bytes=sum(file_size(folder / f"{key}.npz") for key in kept),
        missing=missing,
        changed=changed,
    )


def source_states(videos: Sequence[IndexedVideo]) -> tuple[tuple[IndexedVideo, ...], tuple[IndexedVideo, ...]]:
    """Return the videos whose files were deleted, and those whose files have another size or time than when added."""
    states = [(video, video.source_state()) for video in videos]
    missing, changed = (tuple(v for v, state in states if state == kind) for kind in ("missing", "changed"))
    return missing, changed


def verify(index: Index) -> Iterator[str | Findings]:
    """Read all data of an index; yield the name of each video that was checked, and at last the findings.

    Raises:
        OutputError: the engine cannot be reached.
    """
    problems = index.engine.check()
    counts = dict(index.engine.counts())
    for video in index.videos.values():
        found = counts.pop(video.id, 0)
        if found != video.segments:
            problems.append(f"{video.name} ({video.id}) has {found} segments instead of {video.segments}")
        problems += _problems_of_features(index, video)
        yield video.name
    kept = {kept.file for video in index.videos.values() for kept in video.kept if kept.dataset is None}
    stored = {path.stem for path in (index.path / FEATURES).glob("*.npz")}
    missing, changed = source_states(list(index.videos.values()))
    yield Findings(tuple(problems), missing, changed, len(stored - kept), len(counts))


def _problems_of_features(index: Index, video: IndexedVideo) -> list[str]:
    problems = []
    for kept in video.kept:
        try:
            rows = read_kept(index.path, kept)
        except MesmError as error:
            problems.append(f"{video.name} ({video.id}): {error.message}")
            continue
        if rows.ndim != 2 or not len(rows) or not np.isfinite(rows).all():
            problems.append(f"{video.name} ({video.id}): its features by {kept.backbone} are damaged")
    return problems
