"""Hands videos to the workers of a cluster, and gives those of a lost worker to another one."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mesm_core.errors import DeviceError, FeatureError, MesmError, count
from mesm_core.extraction.pipeline import Extracted, Failed, Frames
from mesm_core.extraction.sources import VideoFile
from mesm_core.extraction.work import Done, Event

RETRIES = 2
"""Number of times that a video is given to another worker after its worker was lost."""
STARTS = 3
"""Number of times that a worker is started at a place without success before the place is given up."""
WAIT_SECONDS = 1.0
"""Interval at which the cluster is asked for new nodes."""
PATIENCE_SECONDS = 60.0
"""Time without any node after which the extraction ends; nodes may be replaced meanwhile."""
START_SECONDS = 600.0
"""Time without any ready worker after which the extraction ends: other programs may use the whole cluster."""


@dataclass(frozen=True, slots=True)
class Place:
    """A GPU, or a group of ``cores``, on a node. ``number``: of the place on its node; ``host``: name of the node."""

    node: str
    host: str
    number: int
    cores: int
    gpu: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """The answer of a worker that has ended, or of a node that is gone, and the reason."""

    reason: str


Value = dict[str, str] | str | tuple[Extracted | Failed, int] | MesmError | Lost


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker returned: the hashes of its weights (``video`` is None), the hash of a video, or features and the
    number of frames; or an error, or that it was lost."""

    worker: int
    video: VideoFile | None
    value: Value


class Cluster(Protocol):
    """Workers on nodes. No call waits, except ``answers``."""

    def places(self) -> Sequence[Place]:
        """Return the places of all nodes that are alive."""
        ...

    def start(self, place: Place) -> int:
        """Start a worker and return its number. It answers with the hashes of its weights once it is ready."""
        ...

    def stop(self, worker: int) -> None:
        """End a worker that was lost or is not needed."""
        ...

    def ask_content(self, worker: int, video: VideoFile) -> None:
        """Ask a worker for the hash of a video."""
        ...

    def ask_features(self, worker: int, video: VideoFile, names: Sequence[str]) -> None:
        """Ask a worker for the features of a video by the named backbones."""
        ...

    def answers(self, seconds: float) -> Sequence[Answer]:
        """Return the answers that have arrived; wait up to ``seconds`` for the first."""
        ...


@dataclass(slots=True)
class _Worker:
    """A worker, its place, the videos that it has, with the hashes that are known, and whether it is ready."""

    place: Place
    videos: dict[VideoFile, str | None] = field(default_factory=dict)
    ready: bool = False


class Dispatch:
    """Has videos extracted by the workers of a cluster.

    A worker has up to ``most`` videos at a time. A video whose worker was lost goes to another one after all others,
    and alone, so that a video that crashes its worker takes no other one along.

    Args:
        videos: in the order in which they are handed out; hashes: of the weights, by backbone, which all workers must
            have.
        missing: returns the backbones that a video with a hash still needs; raises a FeatureError if there can be none.
        store: stores features of a video with a hash.
    """

    def __init__(
        self,
        videos: Sequence[VideoFile],
        cluster: Cluster,
        *,
        hashes: Mapping[str, str],
        missing: Callable[[VideoFile, str], Sequence[str]],
        store: Callable[[Extracted, str], Done | Failed],
        most: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._hashes, self._most, self._clock = cluster, hashes, most, clock
        self._missing, self._store = missing, store
        self._waiting, self._again = deque(videos), deque[VideoFile]()
        self._left = self._total = len(videos)
        self._workers: dict[int, _Worker] = {}
        self._losses: Counter[VideoFile] = Counter()
        self._failed_starts: Counter[Place] = Counter()
        self._last_reason = ""
        self._seen_node = self._seen_worker = clock()

    def run(self) -> Iterator[Event]:
        """Yield the events of the extraction.

        Raises:
            DeviceError: there is no node, or no worker can start; FeatureError: a worker has other weights; MesmError:
                a worker cannot be built, or features cannot be stored.
        """
        while self._left:
            self._employ()
            self._hand_out()
            for answer in self._cluster.answers(WAIT_SECONDS):
                for event in self._take(answer):
                    self._left -= not isinstance(event, Frames)
                    yield event

    def _employ(self) -> None:
        """Start a worker at each place that has none."""
        taken = {worker.place for worker in self._workers.values()}
        places = self._cluster.places()
        for place in places:
            if place not in taken and self._failed_starts[place] < STARTS:
                self._workers[self._cluster.start(place)] = _Worker(place)
        now = self._clock()
        if places:
            self._seen_node = now
        if places and not self._workers:
            raise self._ended("No worker can start on the Ray cluster.")
        if any(worker.ready for worker in self._workers.values()):
            self._seen_worker = now
        if now - self._seen_node > PATIENCE_SECONDS:
            raise self._ended("No node of the Ray cluster is left.")
        if now - self._seen_worker > START_SECONDS:
            raise self._ended(
                "No worker has started on the Ray cluster: other programs may use all of its processors, or GPUs."
            )

    def _ended(self, problem: str) -> DeviceError:
        """Return the error that ends the extraction."""
        why = f" The last loss was on {self._last_reason.rstrip('.')}." if self._last_reason else ""
        done = f"{self._total - self._left} of {count(self._total, 'video')} are done."
        return DeviceError(f"{problem}{why} {done}", hint="`ray status` shows the nodes.")

    def _hand_out(self) -> None:
        ready = {number: worker for number, worker in self._workers.items() if worker.ready}
        for queue in (self._waiting, self._again):
            while queue:
                alone = queue is self._again
                free = {n: len(each.videos) for n, each in ready.items() if self._has_room(each, alone=alone)}
                if not free:
                    break
                number, video = min(free, key=free.__getitem__), queue.popleft()
                ready[number].videos[video] = None
                self._cluster.ask_content(number, video)

    def _has_room(self, worker: _Worker, *, alone: bool) -> bool:
        if alone:
            return not worker.videos
        return len(worker.videos) < self._most and not any(video in self._losses for video in worker.videos)

    def _take(self, answer: Answer) -> Iterator[Event]:
        worker, video, value = self._workers.get(answer.worker), answer.video, answer.value
        if worker is None:
            return  # it was lost, which another answer has said
        if isinstance(value, Lost):
            yield from self._lose(answer.worker, worker, value.reason)
        elif video is None:
            self._open(worker, value)
        elif isinstance(value, MesmError):
            yield self._finish(worker, Failed(video, self._explained(video, value, worker), worker.videos[video]))
        elif isinstance(value, str):
            yield from self._extract(answer.worker, worker, video, value)
        elif isinstance(value, tuple):
            result, frames = value
            content = worker.videos[video]
            assert content is not None
            yield Frames(frames)
            if isinstance(result, Extracted):
                yield self._finish(worker, self._store(result, content))
            else:
                yield self._finish(worker, Failed(video, result.reason, content))

    def _open(self, worker: _Worker, value: Value) -> None:
        """Take a worker that is ready.

        Raises:
            MesmError: it could not be built, or has other weights.
        """
        where = f"Node {worker.place.host}"
        if isinstance(value, MesmError):
            raise type(value)(f"{where}: {value.message}", hint=value.hint) from value
        if value != self._hashes:
            raise FeatureError(
                f"{where} has other weights than the machine that runs the command.",
                hint="Put the same weights file at the same path on every node.",
            )
        worker.ready = True
        self._failed_starts.pop(worker.place, None)

    def _extract(self, number: int, worker: _Worker, video: VideoFile, content: str) -> Iterator[Event]:
        """Have a video extracted by the backbones that it still needs."""
        worker.videos[video] = content
        try:
            names = self._missing(video, content)
        except FeatureError as error:
            yield self._finish(worker, Failed(video, str(error), content))
            return
        if names:
            self._cluster.ask_features(number, video, names)
        else:
            yield self._finish(worker, Done(video, content, {}))

    def _finish(self, worker: _Worker, event: Done | Failed) -> Done | Failed:
        del worker.videos[event.video]
        return event

    def _lose(self, number: int, worker: _Worker, reason: str) -> Iterator[Event]:
        """Put the videos of a lost worker back, or report those that were lost too often."""
        del self._workers[number]
        self._cluster.stop(number)
        self._last_reason = f"{worker.place.host}: {reason}"
        self._failed_starts[worker.place] += not worker.ready
        for video, content in worker.videos.items():
            self._losses[video] += 1
            if self._losses[video] <= RETRIES:
                self._again.append(video)
            else:
                times = count(self._losses[video], "time")
                yield Failed(video, f"{video.path}: its worker was lost {times}, last on {self._last_reason}", content)

    @staticmethod
    def _explained(video: VideoFile, error: MesmError, worker: _Worker) -> str:
        """Return the message of an error, and where the file is missing if it is not missing here."""
        if not video.path.is_file():
            return str(error)
        return f"Node {worker.place.host}: {error}\nEvery node must have the file at the same path."
