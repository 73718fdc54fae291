"""TACoS: one JSON object per split with one entry per video, timestamps in frames (docs/datasets.md, "Rules")."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mesm_core.data.annotations import Annotations, read_videos, video_moments
from mesm_core.errors import DataError
from mesm_core.types import Query


class Tacos:
    """Reader of ``{train,val,test}.json``."""

    splits: tuple[str, ...] = ("train", "val", "test")
    count_splits: tuple[str, ...] = ("train", "test")
    counts_in: str | None = None
    truths: Mapping[str, str] = MappingProxyType({})

    def files(self, folder: Path, split: str) -> tuple[Path, ...]:
        """Return the files that ``read`` reads."""
        return (folder / f"{split}.json",)

    def read(self, folder: Path, split: str) -> Annotations:
        """Return the split's queries; ids count from 1; training queries have none.

        Inverted moments are dropped before ids are given; moments are clamped to [0, duration].

        Raises:
            DataError: the file is missing or malformed; the message names the video and the sentence.
        """
        (path,) = self.files(folder, split)
        repairs: Counter[str] = Counter()
        queries: list[Query] = []
        for vid, video in read_videos(path).items():
            fps, duration = _rate_and_duration(video, f"{path}, video {vid}")
            for start, end, sentence in video_moments(video, f"{path}, video {vid}"):
                if end < start:
                    repairs["inverted (dropped)"] += 1
                    continue
                window = (min(max(start / fps, 0.0), duration), min(max(end / fps, 0.0), duration))
                repairs["clamped to the video"] += window != (start / fps, end / fps)
                qid = None if split == "train" else len(queries) + 1
                queries.append(Query(qid, vid, sentence, duration, (window,)))
        return Annotations(tuple(queries), +repairs)


def _rate_and_duration(video: Any, where: str) -> tuple[float, float]:
    try:
        fps, frames = float(video["fps"]), float(video["num_frames"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise DataError(f"{where}: 'fps' and 'num_frames' must be numbers.") from None
    if not (fps > 0 and math.isfinite(fps)):
        raise DataError(f"{where}: fps is {fps:g}; it must be positive.")
    if not (frames > 0 and math.isfinite(frames)):
        raise DataError(f"{where}: num_frames is {frames:g}, so the video's duration is 0.")
    duration = frames / fps
    if not 0 < duration < math.inf:
        raise DataError(f"{where}: {frames:g} frames at {fps:g} per second give no valid duration.")
    return fps, duration
