"""Extraction pipeline: threads decode videos while networks encode batches of samples from several videos."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from mesm_core.backbones.protocol import Backbone, VideoInfo
from mesm_core.errors import MesmError
from mesm_core.extraction.settings import Settings
from mesm_core.extraction.sources import VideoFile
from mesm_core.handover import Handover, running
from mesm_core.inputs import reason
from mesm_core.video.rows import Pass, read_rows
from mesm_core.video.source import Video

WAITING = 32
"""Limit of samples that wait for the networks. A sample takes 4.8 MB for SlowFast and 0.15 MB for CLIP."""
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Extracted:
    """A video's features (rows, width) float32 by backbone name, and the result of decoding it."""

    video: VideoFile
    features: dict[str, np.ndarray]
    decoding: Pass


@dataclass(frozen=True, slots=True)
class Failed:
    """A video without features, and the reason; ``content``: the hash of its content, if it is known."""

    video: VideoFile
    reason: str
    content: str | None = None


@dataclass(frozen=True, slots=True)
class Frames:
    """``count`` more frames of videos were decoded."""

    count: int


@dataclass(frozen=True, slots=True)
class _Sample:
    """One row of a video for one backbone, before the network."""

    video: int
    backbone: str
    row: int
    value: np.ndarray


@dataclass(frozen=True, slots=True)
class _End:
    """The end of a video: the number of rows of each backbone, or the reason why there are none."""

    video: int
    rows: dict[str, int]
    decoding: Pass
    problem: str | None = None


@dataclass(slots=True)
class _Open:
    """A video in progress: rows by backbone and number, and its end once it is decoded."""

    rows: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)
    end: _End | None = None

    @property
    def complete(self) -> bool:
        return self.end is not None and {name: len(rows) for name, rows in self.rows.items()} == self.end.rows


def extract(
    videos: Sequence[VideoFile],
    wanted: Sequence[Sequence[Backbone]],
    *,
    settings: Settings,
    batch_size: int = 16,
    decoders: int = 2,
    select: Callable[[VideoFile, Sequence[Backbone]], Sequence[Backbone]] | None = None,
) -> Iterator[Extracted | Failed | Frames]:
    """Yield the features of each video when they are complete; a video that cannot be read does not stop the others.

    Every video is decoded once for all backbones. The number of waiting samples is limited, and no video is held in
    memory completely.

    Args:
        videos: video files; wanted: for each video, the backbones whose features are needed.
        batch_size: samples per batch, from one or several videos; decoders: decoding threads, one video each.
        select: called in a decoding thread before a video is read, with its backbones; returns those that are still
            needed. If it raises a MesmError, the video fails for that reason.
    """
    ready = Handover[_Sample | _End | Frames | BaseException](WAITING)
    numbers = iter(range(len(videos)))
    lock = threading.Lock()

    def decode() -> None:
        while not ready.closed:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                _decode(number, videos[number], wanted[number], settings, ready, select)
            except BaseException as error:  # handed to the caller's thread, which raises it
                ready.put(error)

    backbones = {backbone.name: backbone for group in wanted for backbone in group}
    with running([decode] * min(decoders, len(videos)), ready):
        yield from _collect(videos, backbones, ready, batch_size=batch_size)


def _decode(
    number: int,
    file: VideoFile,
    backbones: Sequence[Backbone],
    settings: Settings,
    ready: Handover[_Sample | _End | Frames | BaseException],
    select: Callable[[VideoFile, Sequence[Backbone]], Sequence[Backbone]] | None,
) -> None:
    """Decode a video, and put its samples and its end into ``ready``."""
    decoding, path = Pass(), str(file.path)
    try:
        backbones = backbones if select is None else select(file, backbones)
    except MesmError as error:
        ready.put(_End(number, {}, decoding, str(error)))
        return
    if not backbones:
        ready.put(_End(number, {}, decoding))
        return
    rows = dict.fromkeys((backbone.name for backbone in backbones), 0)

    def put_samples(name: str, samples: Iterator[np.ndarray]) -> None:
        for value in samples:
            ready.put(_Sample(number, name, rows[name], value))
            rows[name] += 1

    try:
        with Video(path) as video:
            rate = video.average_rate
        info = VideoInfo(None if rate is None else float(rate))
        samplers = [backbone.sampler(settings.clip_len, info) for backbone in backbones]
        seconds = [backbone.picture_seconds(settings.clip_len) for backbone in backbones]
        reported = 0
        for picture in read_rows(path, seconds, interpolation=settings.interpolation, report=decoding):
            if ready.closed:
                return
            put_samples(backbones[picture.clock].name, samplers[picture.clock].push(picture.pixels))
            if decoding.frames > reported:
                ready.put(Frames(decoding.frames - reported))
                reported = decoding.frames
        for backbone, sampler in zip(backbones, samplers, strict=True):
            put_samples(backbone.name, sampler.finish(float(decoding.end)))
        ready.put(Frames(decoding.frames - reported))
        ready.put(_End(number, rows, decoding))
    except MesmError as error:
        ready.put(_End(number, rows, decoding, str(error)))
    except Exception as error:  # an error in one damaged video must not stop the others
        ready.put(_End(number, rows, decoding, f"{path} cannot be decoded: {type(error).__name__}: {reason(error)}."))


def _collect(
    videos: Sequence[VideoFile],
    backbones: dict[str, Backbone],
    ready: Handover[_Sample | _End | Frames | BaseException],
    *,
    batch_size: int,
) -> Iterator[Extracted | Failed | Frames]:
    """Encode samples in batches as they arrive, and yield the videos that are complete."""
    opened: dict[int, _Open] = {}
    waiting: dict[str, list[_Sample]] = {name: [] for name in backbones}
    remaining = len(videos)
    while remaining:
        fullest = max(waiting, key=lambda name: len(waiting[name]))
        touched: set[int] = set()
        try:
            # Do not wait for a full batch: videos may depend on this one to be complete.
            item = ready.get(timeout=POLL_SECONDS if waiting[fullest] else None)
        except queue.Empty:
            touched = _encode(backbones[fullest], waiting, opened)
        else:
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, Frames):
                yield item
            elif isinstance(item, _End):
                state = opened.setdefault(item.video, _Open())
                state.end, touched = item, {item.video}
                state.rows |= {name: state.rows.get(name, {}) for name in item.rows}
            else:
                opened.setdefault(item.video, _Open()).rows.setdefault(item.backbone, {})
                waiting[item.backbone].append(item)
                if len(waiting[item.backbone]) == batch_size:
                    touched = _encode(backbones[item.backbone], waiting, opened)
        for number in touched:
            state = opened[number]
            if state.end is not None and state.end.problem is not None:
                for name in waiting:
                    waiting[name] = [sample for sample in waiting[name] if sample.video != number]
                yield Failed(videos[number], state.end.problem)
            elif state.complete:
                yield _finished(videos[number], state)
            else:
                continue
            del opened[number]
            remaining -= 1


def _encode(backbone: Backbone, waiting: dict[str, list[_Sample]], opened: dict[int, _Open]) -> set[int]:
    """Run the network on the samples that wait for it; return the videos of these samples."""
    batch, waiting[backbone.name] = waiting[backbone.name], []
    features = backbone.encode(np.stack([sample.value for sample in batch]))
    for sample, row in zip(batch, features, strict=True):
        opened[sample.video].rows[backbone.name][sample.row] = row
    return {sample.video for sample in batch}


def _finished(video: VideoFile, state: _Open) -> Extracted:
    assert state.end is not None
    features = {name: np.stack([rows[row] for row in range(len(rows))]) for name, rows in state.rows.items()}
    return Extracted(video, features, state.end.decoding)
