"""A cluster whose workers answer as a test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from mesm_core.errors import DataError
from mesm_core.extraction.cluster.dispatch import Answer, Dispatch, Lost, Place, Value
from mesm_core.extraction.pipeline import Extracted, Failed
from mesm_core.extraction.sources import VideoFile
from mesm_core.extraction.work import Done, Event
from mesm_core.video.rows import Pass

HASHES = {"pixels": "none"}


def video(number: int) -> VideoFile:
    return VideoFile(f"v{number}", Path(f"/videos/v{number}.mp4"))


class FakeCluster:
    """Answers at once, in the order of the calls.

    ``seen``: (host, video) for each video that a worker was given to extract; ``on_extract``: returns what a worker
    answers about a video, or None for features; ``opens``: what a worker of a host answers when it starts.
    """

    def __init__(self, *hosts: str) -> None:
        self.hosts = list(hosts)
        self.opens: dict[str, Value] = {}
        self.on_extract: Callable[[str, VideoFile], Value | None] = lambda host, video: None
        self.on_content: Callable[[str, VideoFile], Value] = lambda host, video: f"hash of {video.name}"
        self.seen: list[tuple[str, str]] = []
        self.started: list[str] = []
        self.most = 0
        self._workers: dict[int, str] = {}
        self._queue: list[Answer] = []
        self.seconds = 0.0

    def places(self) -> list[Place]:
        return [Place(host, host, 0, 1) for host in self.hosts]

    def start(self, place: Place) -> int:
        number = len(self.started)
        self.started.append(place.host)
        self._workers[number] = place.host
        self._queue.append(Answer(number, None, self.opens.get(place.host, HASHES)))
        return number

    def stop(self, worker: int) -> None:
        del self._workers[worker]

    def ask_content(self, worker: int, video: VideoFile) -> None:
        self._queue.append(Answer(worker, video, self.on_content(self._workers[worker], video)))

    def ask_features(self, worker: int, video: VideoFile, names: Sequence[str]) -> None:
        host = self._workers[worker]
        self.seen.append((host, video.name))
        features = {name: np.ones((3, 2), np.float32) for name in names}
        result = self.on_extract(host, video) or (Extracted(video, features, Pass(75, end=Fraction(3))), 75)
        self._queue.append(Answer(worker, video, result))
        if isinstance(result, Lost):
            self.hosts = [each for each in self.hosts if each != host or "stays" in result.reason]

    def answers(self, seconds: float) -> list[Answer]:
        if not self._queue:
            self.seconds += 30.0  # nothing will come; the clock moves on
            return []
        return [self._queue.pop(0)]


def dispatched(cluster: FakeCluster, videos: Sequence[VideoFile], *, known: Sequence[str] = ()) -> list[Event]:
    """Return the events of an extraction of videos, two at a time a worker."""

    def missing(video: VideoFile, content: str) -> list[str]:
        assert content == f"hash of {video.name}"
        return [] if video.name in known else ["pixels"]

    def store(event: Extracted, content: str) -> Done | Failed:
        return Done(event.video, content, {name: len(rows) for name, rows in event.features.items()})

    dispatch = Dispatch(
        videos, cluster, hashes=HASHES, missing=missing, store=store, most=2, clock=lambda: cluster.seconds
    )
    return list(dispatch.run())


def unreadable(host: str, video: VideoFile) -> Value:
    return DataError(f"{video.path} is missing.")
