"""Results of a search as a table, as clips to cut, and as answers about single videos for a page."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mesm_core.inference.answers import Answer, Moment
from mesm_core.inference.clips import CLIP_SUFFIX, COPY_SUFFIX, PlannedClip, slug
from mesm_core.inference.locate import Located
from mesm_core.inputs import printable
from mesm_core.search.manifest import IndexedVideo
from mesm_core.search.results import Found, Results
from mesm_core.video.cut import CONTAINERS

COLUMNS = ("query", "rank", "video", "start", "end", "similarity", "score", "confidence")
MOST_OF_STEM = 100


def csv_text(results: Sequence[Results]) -> str:
    """Return a CSV table with one row per moment, best first, and times in seconds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in results:
        for rank, found in enumerate(result.found, start=1):
            place = (result.query, rank, printable(str(found.video.path)), found.start, found.end)
            sure = "" if found.confidence is None else round(found.confidence, 4)
            writer.writerow([*place, found.similarity, "" if found.score is None else found.score, sure])
    return text.getvalue()


def shown_names(videos: Iterable[IndexedVideo]) -> dict[str, str]:
    """Return the names of videos by id; those of several videos are replaced by paths from the folder that they share.

    An entry that has features without its video is shown as ``'NAME' in FILE``.
    """
    same: dict[str, list[IndexedVideo]] = {}
    for video in videos:
        same.setdefault(video.name, []).append(video)
    shown = {}
    for name, group in same.items():
        folder = os.path.commonpath([video.path.parent for video in group])
        for video in group:
            path = str(video.path.relative_to(folder))
            shown[video.id] = name if len(group) == 1 else path if video.is_video else f"'{name}' in {path}"
    return shown


def plan_search_clips(results: Sequence[Results], folder: Path, *, fast: bool = False) -> list[PlannedClip]:
    """Return the clips of all moments in videos: ``01_VIDEO_0012.4-0018.0.mp4`` in ``folder``.

    The number is the rank. With several queries, the name begins with the query and its number.
    """
    planned = []
    for number, result in enumerate(results, start=1):
        front = f"{number:02}_{slug(result.query)}_" if len(results) > 1 else ""
        for rank, found in enumerate(result.found, start=1):
            if not found.video.is_video:
                continue
            own = found.video.path.suffix.lower()
            suffix = (own if own in CONTAINERS else COPY_SUFFIX) if fast else CLIP_SUFFIX
            times = f"{found.start:06.1f}-{found.end:06.1f}"
            stem = printable(found.video.path.stem)[:MOST_OF_STEM]
            target = folder / f"{front}{rank:02}_{stem}_{times}{suffix}"
            planned.append(PlannedClip(found.video.path, result.query, rank, _moment(found), target))
    return planned


def by_video(results: Sequence[Results]) -> list[Located]:
    """Return the moments as answers about the videos that have any; the video with the best moment first."""
    videos = {found.video.id: found.video for result in results for found in result.found}
    return [
        Located(
            video.path,
            video.duration,
            tuple(_answer(result, video.id) for result in results if any(f.video.id == video.id for f in result.found)),
        )
        for video in videos.values()
    ]


def _answer(result: Results, video: str) -> Answer:
    own = [found for found in result.found if found.video.id == video]
    sure = [found.confidence for found in own]
    return Answer(
        query=result.query,
        windows=np.array([[found.start, found.end, _score(found)] for found in own]),
        saliency=np.zeros(0, np.float32),
        seen=own[0].video.duration,
        confidences=None if None in sure else np.array(sure, np.float64),
    )


def _moment(found: Found) -> Moment:
    return Moment(found.start, found.end, _score(found), found.confidence)


def _score(found: Found) -> float:
    return found.similarity if found.score is None else found.score
