"""TACoS: one JSON object a split, video by video, with timestamps in frames (datasets.md, "Rules")."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mesm_core.data.annotations import Annotations, read_json, register
from mesm_core.errors import DataError
from mesm_core.types import Query


@register("tacos")
class Tacos:
    """Reader of ``{train,val,test}.json``."""

    splits: tuple[str, ...] = ("train", "val", "test")
    count_splits: tuple[str, ...] = ("train", "test")

    def read(self, folder: Path, split: str) -> Annotations:
        """Return the split's queries; ids run from 1 where the split is not for training.

        Inverted moments are dropped before ids are given; moments are clamped to [0, duration].

        Raises:
            DataError: the file is missing or malformed; the message names the video and the sentence.
        """
        path = folder / f"{split}.json"
        content = read_json(path)
        if not isinstance(content, dict):
            raise DataError(f"{path}: expected an object with one entry a video, found {type(content).__name__}.")
        repairs: Counter[str] = Counter()
        queries: list[Query] = []
        for vid, video in content.items():
            fps, duration = _rate_and_duration(video, f"{path}, video {vid}")
            for start, end, sentence in _moments(video, f"{path}, video {vid}"):
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
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{where}: 'fps' and 'num_frames' must be numbers.") from None
    if not (fps > 0 and math.isfinite(fps)):
        raise DataError(f"{where}: fps is {fps:g}; it must be positive.")
    if not (frames > 0 and math.isfinite(frames)):
        raise DataError(f"{where}: num_frames is {frames:g}, so the video's duration is 0.")
    return fps, frames / fps


def _moments(video: dict[str, Any], where: str) -> Iterator[tuple[float, float, str]]:
    stamps, sentences = video.get("timestamps"), video.get("sentences")
    if not isinstance(stamps, list) or not isinstance(sentences, list):
        raise DataError(f"{where}: 'timestamps' and 'sentences' must be lists.")
    if len(stamps) != len(sentences):
        raise DataError(f"{where}: {len(stamps)} timestamps for {len(sentences)} sentences.")
    for number, (stamp, sentence) in enumerate(zip(stamps, sentences, strict=True), start=1):
        try:
            start, end = map(float, stamp)
        except (TypeError, ValueError):
            raise DataError(f"{where}, sentence {number}: timestamp {stamp!r} is not [start, end].") from None
        if not (math.isfinite(start) and math.isfinite(end)):
            raise DataError(f"{where}, sentence {number}: timestamp {stamp!r} is not finite.")
        if not isinstance(sentence, str) or not sentence.strip():
            raise DataError(f"{where}, sentence {number}: the sentence is empty.")
        yield start, end, sentence
