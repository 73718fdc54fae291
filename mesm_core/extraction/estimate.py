"""Estimates an extraction before it starts: hours of video, rows, bytes, and seconds of work."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mesm_core.backbones.protocol import Backbone, VideoInfo
from mesm_core.errors import MesmError
from mesm_core.extraction.settings import Settings
from mesm_core.extraction.sources import VideoFile
from mesm_core.video.rows import Pass, read_rows
from mesm_core.video.source import Video

TRIED_SECONDS = 3.0
"""Seconds for measuring the speed of decoding, and approximately that of each network."""
TRIED_SAMPLES = 4


@dataclass(frozen=True)
class Estimate:
    """The expected size of an extraction.

    ``hours``: of video, by the headers; ``rows``, ``bytes``: by backbone; ``seconds``: expected work, None if no video
    could be read; ``unknown``: videos without a duration in the header; ``bad``: videos that cannot be opened, with the
    reason.
    """

    videos: int
    hours: float
    rows: dict[str, int]
    bytes: dict[str, int]
    seconds: float | None
    unknown: list[str] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the same as JSON-able values."""
        return asdict(self) | {"bad": [{"video": video, "reason": reason} for video, reason in self.bad]}


def estimate(
    videos: Sequence[VideoFile],
    backbones: Sequence[Backbone],
    settings: Settings,
    *,
    batch_size: int,
    processes: int = 1,
    seconds: float = TRIED_SECONDS,
) -> Estimate:
    """Read the videos' headers, and measure decoding and networks on the first video that can be read.

    The expected time is the sum of decoding on one thread and of the networks. Both overlap in an extraction, so the
    estimate tends to be too long.

    Args:
        processes: number of processes that divide the work, each on its own device; seconds: time for measuring.
    """
    clip_len = float(settings.clip_len)
    durations, unknown, bad = [], [], []
    for video in videos:
        try:
            with Video(video.path) as opened:
                duration = opened.header_duration
        except MesmError as error:
            bad.append((str(video.path), error.message))
            continue
        if duration is None:
            unknown.append(video.name)
        else:
            durations.append(duration)
    rows = sum(max(1, round(duration / clip_len)) for duration in durations)
    named = {backbone.name: backbone for backbone in backbones}
    size = np.dtype(settings.dtype).itemsize
    costs = (_seconds_a_second(v, backbones, settings, batch_size=batch_size, seconds=seconds) for v in videos)
    cost = next((cost for cost in costs if cost is not None), None)
    return Estimate(
        videos=len(videos),
        hours=sum(durations) / 3600,
        rows=dict.fromkeys(named, rows),
        bytes={name: rows * backbone.width * size for name, backbone in named.items()},
        seconds=None if cost is None else cost * sum(durations) / min(processes, os.cpu_count() or 1),
        unknown=unknown,
        bad=bad,
    )


def expected_frames(videos: Sequence[Path]) -> int:
    """Return the approximate number of frames of videos from their headers; a missing number counts as 0."""
    total = 0.0
    for path in videos:
        with suppress(MesmError), Video(path) as opened:
            total += (opened.header_duration or 0.0) * float(opened.average_rate or 0)
    return round(total)


def _seconds_a_second(
    video: VideoFile, backbones: Sequence[Backbone], settings: Settings, *, batch_size: int, seconds: float
) -> float | None:
    """Return the seconds of work per second of video, or None if the video cannot be read."""
    found = Pass()
    samples: dict[str, list[np.ndarray]] = {backbone.name: [] for backbone in backbones}
    began = time.perf_counter()
    try:
        for name, sample in _samples(video, backbones, settings, found, ends=began + seconds):
            if len(samples[name]) < min(TRIED_SAMPLES, batch_size):
                samples[name].append(sample)
    except MesmError:
        return None
    work = (time.perf_counter() - began) / max(float(found.end), 1e-3)
    for backbone in backbones:
        if tried := samples[backbone.name]:
            backbone.encode(np.stack(tried[:1]))  # the first call includes one-time initialisation
            began = time.perf_counter()
            backbone.encode(np.stack(tried))
            work += (time.perf_counter() - began) / len(tried) / float(settings.clip_len)
    return work


def _samples(
    video: VideoFile, backbones: Sequence[Backbone], settings: Settings, found: Pass, *, ends: float
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield samples from the beginning of a video until the time ``ends``."""
    with Video(video.path) as opened:
        rate = opened.average_rate
    info = VideoInfo(None if rate is None else float(rate))
    samplers = [backbone.sampler(settings.clip_len, info) for backbone in backbones]
    clocks = [backbone.picture_seconds(settings.clip_len) for backbone in backbones]
    for picture in read_rows(video.path, clocks, interpolation=settings.interpolation, report=found):
        for sample in samplers[picture.clock].push(picture.pixels):
            yield backbones[picture.clock].name, sample
        if time.perf_counter() > ends:
            break
    for backbone, sampler in zip(backbones, samplers, strict=True):
        for sample in sampler.finish(float(found.end)):
            yield backbone.name, sample
