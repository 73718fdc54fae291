"""Videos longer than those of training: the overlapping windows they are seen through, and how answers are joined."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mesm_core.config.schema import Config
from mesm_core.errors import ConfigError, FeatureError
from mesm_core.metrics.nms import temporal_nms
from mesm_core.types import Prediction

AUTO, OFF = "auto", "off"
Window = str | float
"""``auto``, ``off``, or the seconds of a window."""

OVERLAP = 0.5
FEWEST_FRAMES = 4
"""Of a window: with fewer there is no course of events to look at."""
MERGE_NMS = 0.7
"""Overlapping windows find the same moment twice: above this overlap the better one stands for both."""
DECIMALS = 4
MOST_WINDOWS = 6000
"""Of a video: a day in windows of half a minute. More come of a wrong duration, and would take hours."""
MOST_MOMENTS = 100
"""Kept of a video that was answered in windows, which have thousands in a day of video."""
MEDIANS = {"tacos": 159.0, "charades": 30.7, "charades-cd": 30.8, "charades-cg": 30.6, "qvhighlights": 150.0}
"""Median seconds of the published training videos, by dataset, for checkpoints that do not say it."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Durations of the videos that a model was trained on, in seconds: the ``longest`` and the ``median``."""

    longest: float
    median: float


def training_lengths(facts: Mapping[str, Any], config: Config) -> Lengths:
    """Return what a checkpoint's ``facts`` say of its training videos' durations; older checkpoints do not.

    For those the longest video is the longest that fits into ``dataset.max_frames``, or ``eval.max_time`` where the
    clip length is not known, and the median is the published training split's, or half of the longest.

    >>> from mesm_core.config.load import load_config
    >>> training_lengths({"longest": 80.5, "median": 31.0}, load_config("charades"))
    Lengths(longest=80.5, median=31.0)
    >>> training_lengths({}, load_config("charades"))
    Lengths(longest=194.0, median=30.7)
    >>> training_lengths({}, load_config("tacos"))
    Lengths(longest=1000.0, median=159.0)
    """
    if "longest" in facts and "median" in facts:
        return Lengths(float(facts["longest"]), float(facts["median"]))
    data = config.dataset
    longest = data.max_frames * data.clip_len if data.clip_len > 0 else config.eval.max_time
    return Lengths(longest, min(MEDIANS.get(data.name, longest / 2), longest))


def check_window(window: Window) -> Window:
    """Return ``auto``, ``off``, or a positive number of seconds as a float.

    Raises:
        ConfigError: it is none of these.

    >>> check_window("auto"), check_window("30"), check_window(2.5)
    ('auto', 30.0, 2.5)
    """
    if window in (AUTO, OFF):
        return window
    try:
        seconds = float(window)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if isinstance(window, bool) or not 0 < seconds < math.inf:
        raise ConfigError(f"window is auto, off, or a positive number of seconds, not {str(window)[:40]!r}.")
    return seconds


def window_frames(window: Window, *, frames: int, duration: float, lengths: Lengths, max_frames: int) -> int | None:
    """Return how many frames each window of a video has, or None where the video is seen whole.

    A window has at least ``FEWEST_FRAMES`` frames and at most ``max_frames``, so that none are averaged.

    Args:
        window: as from ``check_window``; ``auto`` cuts only videos longer than the longest of training.
        frames, duration: of the video, the latter in seconds.
        lengths: of the training videos; max_frames: the most that the model takes.

    >>> window_frames("auto", frames=600, duration=600.0, lengths=Lengths(194, 30), max_frames=194)
    30
    >>> window_frames("auto", frames=180, duration=180.0, lengths=Lengths(194, 30), max_frames=194) is None
    True
    """
    if window == OFF or (window == AUTO and duration <= lengths.longest):
        return None
    seconds = lengths.median if window == AUTO else float(window)
    if seconds >= duration:
        return None
    count = min(max(round(seconds / duration * frames), FEWEST_FRAMES), max_frames)
    return count if count < frames else None


def window_ranges(frames: int, length: int, *, overlap: float = OVERLAP) -> list[tuple[int, int]]:
    """Return the first frame of each window and the frame behind its last; together they cover the video.

    All windows are ``length`` frames long, or as long as the video where that is shorter. The last one ends with the
    video, so it may overlap the one before by more than ``overlap``.

    >>> window_ranges(10, 4), window_ranges(9, 4), window_ranges(3, 4)
    ([(0, 4), (2, 6), (4, 8), (6, 10)], [(0, 4), (2, 6), (4, 8), (5, 9)], [(0, 3)])
    """
    length = min(length, frames)
    step = max(length - round(overlap * length), 1)
    starts = [*range(0, frames - length, step), frames - length]
    return [(start, start + length) for start in starts]


@dataclass(frozen=True, slots=True)
class Piece:
    """What the model sees of a video at once: a window, or all of it.

    ``parts``: its (L, D) frames, one array a feature file; ``first``, ``stop``: its first frame and the one behind its
    last; ``start``, ``seconds``: where it begins in the video and how long it lasts.
    """

    parts: Sequence[np.ndarray]
    first: int
    stop: int
    start: float
    seconds: float


def cut_video(
    parts: Sequence[np.ndarray], *, window: Window, duration: float, lengths: Lengths, max_frames: int
) -> list[Piece]:
    """Return the windows of a video in order, or one piece where it is seen whole; frames are not copied.

    Args:
        parts: raw (L, D) frames, one array a feature file; the shortest file counts.
        window, duration, lengths, max_frames: as for ``window_frames``.

    Raises:
        FeatureError: there would be more than ``MOST_WINDOWS``.
    """
    frames = shortest(parts)
    length = window_frames(window, frames=frames, duration=duration, lengths=lengths, max_frames=max_frames)
    if length is None:
        return [Piece(parts, 0, frames, 0.0, duration)]
    ranges = window_ranges(frames, length)
    if len(ranges) > MOST_WINDOWS:
        raise FeatureError(
            f"A video of {frames:,} frames in {duration:g} seconds would be seen in {len(ranges):,} windows, more than "
            f"{MOST_WINDOWS:,}.",
            hint="Is the duration right? Give longer windows (--window), or --window off to see it at once.",
        )
    a_frame = duration / frames
    return [
        Piece([part[first:stop] for part in parts], first, stop, first * a_frame, length * a_frame)
        for first, stop in ranges
    ]


def shortest(parts: Sequence[np.ndarray]) -> int:
    """Return the number of frames of the shortest of a video's feature arrays; 0 for what is no array of frames."""
    return min((part.shape[0] if part.ndim else 0 for part in parts), default=0)


def window_warnings(pieces: Sequence[Piece], window: Window, *, max_frames: int) -> tuple[str, ...]:
    """Return a warning where a video's windows are not as long as was asked for, by more than a frame."""
    used, frames = pieces[0].seconds, pieces[0].stop
    if isinstance(window, str) or abs(used - window) <= used / frames:
        return ()
    return (
        f"its windows are of {used:.1f} seconds, not {window:g}: a window has {FEWEST_FRAMES} to {max_frames} frames "
        "(dataset.max_frames)",
    )


def relevance(saliency: Sequence[np.ndarray]) -> np.ndarray:
    """Return how likely each window holds what is asked for, as a share of the likeliest window's, float64.

    A slot's score tells moments of one window apart: training never shows the model a video without the moment, so it
    is as high in windows that have none. Saliency is trained to be low under the queries of other videos, by
    -log(1 - sigmoid(score)), so the sigmoid of a window's highest score tells windows apart.

    Args:
        saliency: one score a frame, a window.

    >>> relevance([np.array([-3.0, 0.0]), np.array([-9.0, -9.0]), np.array([0.0])]).round(4).tolist()
    [1.0, 0.0002, 1.0]
    """
    logs = -np.logaddexp(0, [-float(scores.max()) for scores in saliency])
    shares: np.ndarray = np.exp(logs - logs.max())
    return shares


def merge_moments(parts: Sequence[np.ndarray], saliency: Sequence[np.ndarray]) -> np.ndarray:
    """Return the moments of all windows by falling score, without those that a better one overlaps too much.

    A moment's score is multiplied by the ``relevance`` of its window.

    Args:
        parts: (n, 3) rows [start, end, score] a window, in seconds of the video; saliency: one score a frame, a window.

    Returns:
        (m, 3) rows, at most ``MOST_MOMENTS``.
    """
    rows = np.concatenate(parts)
    rows[:, 2] *= np.repeat(relevance(saliency), [len(part) for part in parts])
    merged = temporal_nms(rows, threshold=MERGE_NMS, max_after=MOST_MOMENTS)
    merged[:, 2] = np.round(merged[:, 2], DECIMALS)
    return merged


def join_saliency(parts: Sequence[np.ndarray], ranges: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return one saliency score a frame of the video, float32: the weighted mean of the windows that have the frame.

    A window's scores weigh less towards its ends, where the model sees one side of a frame only (triangular weights).

    Args:
        parts: one score a frame, a window; ranges: the windows' frames, which cover the video.

    >>> join_saliency([np.array([1.0, 1, 1, 1]), np.array([4.0, 4, 4, 4])], [(0, 4), (2, 6)]).tolist()
    [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]
    """
    frames = max(stop for _, stop in ranges)
    total, weight = np.zeros(frames), np.zeros(frames)
    for scores, (start, stop) in zip(parts, ranges, strict=True):
        at = np.arange(stop - start)
        triangle = np.minimum(at + 1, at[::-1] + 1).astype(float)
        total[start:stop] += triangle * scores
        weight[start:stop] += triangle
    return (total / weight).astype(np.float32)


def join_predictions(answers: Sequence[Prediction], pieces: Sequence[Piece]) -> Prediction:
    """Return the answer to a query about a video from the answers in its pieces; one answer is returned as it is.

    Args:
        answers: one a piece, their moments in seconds of the video.
    """
    if len(answers) == 1:
        return answers[0]
    saliency = [answer.saliency for answer in answers]
    return replace(
        answers[0],
        windows=merge_moments([answer.windows for answer in answers], saliency),
        saliency=join_saliency(saliency, [(piece.first, piece.stop) for piece in pieces]),
    )


def bounded(sizes: Sequence[int], *, most: int, total: int) -> Iterator[slice]:
    """Yield slices of consecutive items: at most ``most`` items each, and of a summed size of at most ``total``.

    An item larger than ``total`` is alone.

    >>> list(bounded([2, 2, 9, 1, 1, 1], most=2, total=4))
    [slice(0, 2, None), slice(2, 3, None), slice(3, 5, None), slice(5, 6, None)]
    """
    first = held = 0
    for place, size in enumerate(sizes):
        if place > first and (place - first == most or held + size > total):
            yield slice(first, place)
            first, held = place, 0
        held += size
    if first < len(sizes):
        yield slice(first, len(sizes))
