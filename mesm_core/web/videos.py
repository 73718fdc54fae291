"""A collection of video files, without an index: each prepared video is asked."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesm_core.backbones.protocol import Precision
from mesm_core.caches import default_notes
from mesm_core.errors import DataError, FeatureError, MesmError
from mesm_core.extraction.cached import Featured
from mesm_core.extraction.sources import VideoFile, video_paths
from mesm_core.inference.locate import Located, Locator, Plan, refuse_queries
from mesm_core.inputs import printable
from mesm_core.web.collection import Found, Hit, Progress, WebVideo
from mesm_core.web.settings import MOMENTS_OF_A_VIDEO, MOST_VIDEOS
from mesm_core.web.workers import Cancel, Worker

SEARCH_NMS = 0.3
"""IoU above which moments of a video count as the same result of a search."""
MEMORY_BYTES = 500_000_000
"""Features that are kept in memory."""


@dataclass
class _State:
    """What is known about a video: the hash of its content, and its file's size and time when it was hashed.

    ``prepared``: whether its features can be read, None if this was not tried.
    """

    video: WebVideo
    content: str | None = None
    seen: tuple[int, int] | None = None
    features: Featured | None = None
    prepared: bool | None = None


class VideoCollection:
    """Video files that a locator answers about. Features are extracted in a child process, and cached on disk.

    Args:
        sources: files, folders (searched recursively), patterns and ``.txt`` lists.
        locator: answers the queries; device, precision: with which it was made.

    Raises:
        DataError: a source has no video, or there are too many.
    """

    def __init__(
        self,
        sources: Sequence[str | Path],
        locator: Locator,
        *,
        device: str = "auto",
        precision: Precision | None = None,
    ) -> None:
        self._locator = locator
        self._task = extraction_task(locator.plan, device=device, precision=precision)
        self._worker = Worker()
        self._preparing = threading.Lock()
        self._kept: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()
        paths = video_paths(sources) if sources else []
        if len(paths) > MOST_VIDEOS:
            raise DataError(f"{len(paths)} videos are too many; at most {MOST_VIDEOS} can be served.")
        states = [_state_of(path, name) for path, name in zip(paths, shown_names(paths), strict=True)]
        self._states = {state.video.id: state for state in states}
        self._videos = {key: state.video for key, state in self._states.items()}

    @property
    def calibrated(self) -> bool:
        """Whether moments have a confidence."""
        return self._locator.retriever.calibrated

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about the model, for the user."""
        return self._locator.warnings

    def videos(self) -> Mapping[str, WebVideo]:
        """Return the videos by id, in the order of the sources."""
        return self._videos

    def add(self, path: Path, name: str) -> WebVideo:
        """Add a video under a name."""
        state = _state_of(path, name)
        with self._lock:  # new dictionaries, since other threads iterate over the present ones
            self._states = {**self._states, state.video.id: state}
            self._videos = {**self._videos, state.video.id: state.video}
        return state.video

    def prepared(self, video: str) -> bool:
        """Return whether the features of a video are in memory or in the cache, as far as is known."""
        state = self._states[video]
        if state.content is None or _size_and_time(state.video.path) != state.seen:
            return False
        if state.prepared is None:
            state.prepared = self._locator.extraction.is_cached(state.content)
        return state.prepared

    def prepare(
        self, videos: Sequence[str], *, progress: Callable[[Progress], None], cancel: Cancel
    ) -> Mapping[str, str]:
        """Extract the features of videos that are not prepared; see ``Collection.prepare``."""
        failed: dict[str, str] = {}
        missing = {str(self._states[key].video.path): key for key in videos if not self.prepared(key)}
        finished, total, frames = len(videos) - len(missing), 0, 0

        def follow(event: Mapping[str, Any]) -> None:
            nonlocal finished, total, frames
            if "total" in event:
                total = event["total"]
            elif "frames" in event:
                frames += event["frames"]
            elif "failed" in event:
                key = missing[event["failed"]]
                failed[key] = self._explained(event["reason"], key)
                finished += 1
            else:
                state = self._states[missing[event["done"]]]
                state.content, state.seen, state.prepared = event["content"], _size_and_time(state.video.path), True
                finished += 1
            share = max(finished / len(videos), min(frames / total, 1.0) if total else 0.0)
            progress(Progress(share, finished))

        if missing:
            with self._preparing:
                self._worker.run({**self._task, "paths": list(missing)}, cancel=cancel, on_event=follow)
        return failed

    def locate(self, video: str, query: str) -> Located | None:
        """Return the answer to a query about a video; see ``Collection.locate``."""
        refuse_queries([query])
        state = self._states[video]
        featured = self._featured(state)
        if featured is None:
            return None
        try:
            return self._locator.answer(featured, [query])
        except MesmError as error:
            raise FeatureError(self._explained(error.message, video), hint=error.hint) from error

    def search(self, query: str, *, top: int) -> Found:
        """Return the moments of all prepared videos by confidence, or by score if there is none."""
        refuse_queries([query])
        hits: list[Hit] = []
        warnings: dict[str, None] = {}
        searched = 0
        for key in self._states:
            located = self.locate(key, query)
            if located is None:
                continue
            searched += 1
            (answer,) = located.answers
            hits += [Hit(key, moment) for moment in answer.suppressed(SEARCH_NMS).moments[:MOMENTS_OF_A_VIDEO]]
            if answer.all_words_unknown:
                warnings["The model knows no word of this query, so the results have no meaning."] = None
        hits.sort(key=lambda hit: hit.moment.score if hit.moment.confidence is None else hit.moment.confidence)
        return Found(tuple(reversed(hits[-top:])), searched, tuple(warnings))

    def close(self) -> None:
        """End the child process."""
        self._worker.close()

    def _featured(self, state: _State) -> Featured | None:
        """Return the features of a video from memory or the cache, or None. A changed file has none."""
        content = state.content
        if content is None or _size_and_time(state.video.path) != state.seen:
            state.features = state.prepared = None
            return None
        found = state.features
        if found is None:
            path = state.video.path
            found = self._locator.extraction.cached(VideoFile(path.stem, path), content)
            state.features, state.prepared = found, found is not None
            if found is not None:
                self._limit_memory(state, found)
        return found

    def _limit_memory(self, state: _State, found: Featured) -> None:
        with self._lock:
            self._kept[state.video.id] = sum(part.nbytes for part in found.features)
            while len(self._kept) > 1 and sum(self._kept.values()) > MEMORY_BYTES:
                oldest, _ = self._kept.popitem(last=False)
                self._states[oldest].features = None

    def _explained(self, reason: str, key: str) -> str:
        """Return a message about a video with its name in place of its path, which clients need not know."""
        video = self._states[key].video
        return reason.replace(str(video.path), video.name)


def _state_of(path: Path, name: str) -> _State:
    state = _State(WebVideo(id_of(path), name, path))
    noted = default_notes().get(path, "sha256")
    if isinstance(noted, str):
        state.content, state.seen = noted, _size_and_time(path)
    return state


def extraction_task(plan: Plan, *, device: str, precision: Precision | None) -> dict[str, Any]:
    """Return the task of a child process that extracts features for a plan, without the videos."""
    return {
        "task": "extract",
        "model": None if plan.model is None else str(plan.model),
        "weights": {name: str(path) for name, path in plan.given.items()},
        "clip": None if plan.clip is None or plan.model is None else str(plan.clip),
        "clip_len": str(plan.recipe.clip_len),
        "root": None if plan.root is None else str(plan.root),
        "device": device,
        "precision": precision,
    }


def id_of(path: Path) -> str:
    """Return the id of a video, which depends on its path only."""
    return hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:16]


def shown_names(paths: Sequence[Path]) -> list[str]:
    """Return the names of videos: those of the files, with their folders where they would be the same.

    >>> shown_names([Path("a/one.mp4"), Path("a/two.mp4"), Path("b/two.mp4")])
    ['one.mp4', 'a/two.mp4', 'b/two.mp4']
    """
    counts: dict[str, int] = {}
    for path in paths:
        counts[path.name] = counts.get(path.name, 0) + 1
    common = Path(os.path.commonpath([os.path.abspath(path) for path in paths])) if paths else Path()  # noqa: PTH100
    long = [path.name if counts[path.name] == 1 else path.absolute().relative_to(common).as_posix() for path in paths]
    return [printable(name) for name in long]


def _size_and_time(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
