"""Divides videos longer than those of training into overlapping windows, and merges the predictions of the windows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mesm_core.confidence.calibration import Confidence, windows_confidence
from mesm_core.config.schema import Config
from mesm_core.errors import ConfigError, FeatureError
from mesm_core.metrics.nms import kept_rows
from mesm_core.types import Prediction

AUTO, OFF = "auto", "off"
Window = str | float
"""``auto``, ``off``, or the seconds of a window."""

OVERLAP = 0.5
FEWEST_FRAMES = 4
"""Fewest frames of a window; fewer give the model no temporal context."""
MERGE_NMS = 0.7
"""NMS threshold for moments of different windows, since overlapping windows find the same moment twice."""
DECIMALS = 4
MOST_WINDOWS = 6000
"""Maximum number of windows, enough for a day in windows of half a minute; more indicate a wrong duration."""
MOST_MOMENTS = 100
"""Maximum number of moments of a video that is divided into windows."""
MEDIANS = {"tacos": 159.0, "charades": 30.7, "charades-cd": 30.8, "charades-cg": 30.6, "qvhighlights": 150.0}
"""Median seconds of the published training videos, by dataset, for checkpoints without statistics."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Durations of the videos that a model was trained on, in seconds: the ``longest`` and the ``median``."""

    longest: float
    median: float


def training_lengths(statistics: Mapping[str, Any], config: Config) -> Lengths:
    """Return the durations of the training videos from data statistics, or a guess for older checkpoints.

    The guess for the longest video is the longest that fits into ``dataset.max_frames``, or ``eval.max_time`` if the
    clip length is unknown; for the median, that of the published training split, or half of the longest.

    >>> from mesm_core.config.load import load_config
    >>> training_lengths({"longest": 80.5, "median": 31.0}, load_config("charades"))
    Lengths(longest=80.5, median=31.0)
    >>> training_lengths({}, load_config("charades"))
    Lengths(longest=194.0, median=30.7)
    >>> training_lengths({}, load_config("tacos"))
    Lengths(longest=1000.0, median=159.0)
    """
    if "longest" in statistics and "median" in statistics:
        return Lengths(float(statistics["longest"]), float(statistics["median"]))
    data = config.dataset
    longest = data.max_frames * data.clip_len if data.clip_len > 0 else config.eval.max_time
    return Lengths(longest, min(MEDIANS.get(data.name, longest / 2), longest))


def check_window(window: Window) -> Window:
    """Return ``auto``, ``off``, or a positive number of seconds as a float.

    Raises:
        ConfigError: the value is none of these.

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
        raise ConfigError(f"window must be auto, off, or a positive number of seconds, not {str(window)[:40]!r}.")
    return seconds


def window_frames(window: Window, *, frames: int, duration: float, lengths: Lengths, max_frames: int) -> int | None:
    """Return the number of frames of each window of a video, or None if the video is not divided.

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
    """Return the [first, stop) frames of overlapping windows that cover the video.

    All windows have ``length`` frames, or those of the video if it is shorter. The last window ends with the video, so
    it may overlap the previous one by more than ``overlap``.

    >>> window_ranges(10, 4), window_ranges(9, 4), window_ranges(3, 4)
    ([(0, 4), (2, 6), (4, 8), (6, 10)], [(0, 4), (2, 6), (4, 8), (5, 9)], [(0, 3)])
    """
    length = min(length, frames)
    step = max(length - round(overlap * length), 1)
    starts = [*range(0, frames - length, step), frames - length]
    return [(start, start + length) for start in starts]


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of a video that the model processes at once: a window, or the whole video.

    ``parts``: (L, D) frames, one array per feature file; ``first``, ``stop``: its first frame, and the frame after its
    last; ``start``, ``seconds``: its start in the video and its duration, in seconds.
    """

    parts: Sequence[np.ndarray]
    first: int
    stop: int
    start: float
    seconds: float


def cut_video(
    parts: Sequence[np.ndarray], *, window: Window, duration: float, lengths: Lengths, max_frames: int
) -> list[Piece]:
    """Return the windows of a video in order, or the whole video as one piece; frames are not copied.

    Args:
        parts: raw (L, D) frames, one array per feature file, cut to the shortest.
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
            f"A video of {frames:,} frames in {duration:g} seconds would have {len(ranges):,} windows, more than "
            f"{MOST_WINDOWS:,}.",
            hint="Is the duration right? Use longer windows (--window), or --window off to process it at once.",
        )
    seconds_per_frame = duration / frames
    return [
        Piece([part[first:stop] for part in parts], first, stop, first * seconds_per_frame, length * seconds_per_frame)
        for first, stop in ranges
    ]


def shortest(parts: Sequence[np.ndarray]) -> int:
    """Return the number of frames of the shortest of a video's feature arrays; a scalar array counts as 0 frames."""
    return min((part.shape[0] if part.ndim else 0 for part in parts), default=0)


def window_warnings(pieces: Sequence[Piece], window: Window, *, max_frames: int) -> tuple[str, ...]:
    """Return a warning if the length of a video's windows differs from the requested one by more than a frame."""
    used, frames = pieces[0].seconds, pieces[0].stop
    if isinstance(window, str) or abs(used - window) <= used / frames:
        return ()
    return (
        f"its windows have {used:.1f} seconds, not {window:g}: a window has {FEWEST_FRAMES} to {max_frames} frames "
        "(dataset.max_frames)",
    )


def relevance(saliency: Sequence[np.ndarray]) -> np.ndarray:
    """Return the relevance of each window to the query, relative to the most relevant window, float64.

    A slot's score ranks moments within a window only: in training every video contains the moment, so the score is as
    high in windows without it. Saliency is trained to be low for queries of other videos, by
    -log(1 - sigmoid(score)), so the sigmoid of a window's highest saliency ranks windows.

    Args:
        saliency: for each window, one score per frame.

    >>> relevance([np.array([-3.0, 0.0]), np.array([-9.0, -9.0]), np.array([0.0])]).round(4).tolist()
    [1.0, 0.0002, 1.0]
    """
    logs = -np.logaddexp(0, [-float(scores.max()) for scores in saliency])
    shares: np.ndarray = np.exp(logs - logs.max())
    return shares


def relative(chances: Sequence[float]) -> np.ndarray:
    """Return (n,) float64 chances divided by the highest; 1 if all are 0.

    >>> relative([0.1, 0.4]).tolist(), relative([0.0]).tolist()
    ([0.25, 1.0], [1.0])
    """
    highest = max(chances)
    shares: np.ndarray = np.array(chances) / highest if highest > 0 else np.ones(len(chances))
    return shares


def merge_moments(parts: Sequence[np.ndarray], weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the moments of all windows by decreasing score, after temporal NMS.

    A moment's score is multiplied by the weight of its window.

    Args:
        parts: (n, 3) rows [start, end, score] per window, in seconds of the video; weights: of each window, in [0, 1].

    Returns:
        (m, 3) rows, at most ``MOST_MOMENTS``, and the (m,) places that they had in the windows one after the other.
    """
    rows = np.concatenate(parts)
    rows[:, 2] *= np.repeat(weights, [len(part) for part in parts])
    kept = kept_rows(rows, threshold=MERGE_NMS, max_after=MOST_MOMENTS)
    merged = rows[kept]
    merged[:, 2] = np.round(merged[:, 2], DECIMALS)
    return merged, kept


def join_saliency(parts: Sequence[np.ndarray], ranges: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the saliency (L,) float32 of a video: for each frame the weighted mean over the windows that contain it.

    The weights of a window are triangular: at its ends, the model sees the context on one side only.

    Args:
        parts: for each window, one score per frame; ranges: [first, stop) frames of the windows, which cover the video.

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


def join_predictions(
    answers: Sequence[Prediction], pieces: Sequence[Piece], confidence: Sequence[Confidence] | None = None
) -> tuple[Prediction, Confidence | None]:
    """Merge the predictions about the pieces of a video into one; a single prediction is returned unchanged.

    Windows are ranked by P(there is an answer) if the model is calibrated, else by their ``relevance``.

    Args:
        answers: one prediction per piece, with moments in seconds of the video.
        confidence: that of each prediction alone, from the model's calibration.

    Returns:
        The prediction, and its confidence, or None without a calibration.
    """
    if len(answers) == 1:
        return answers[0], None if confidence is None else confidence[0]
    saliency = [answer.saliency for answer in answers]
    whole, each = (0.0, None) if confidence is None else windows_confidence(confidence)
    weights = relevance(saliency) if each is None else relative([part.answer for part in each])
    windows, places = merge_moments([answer.windows for answer in answers], weights)
    joined = replace(
        answers[0],
        windows=windows,
        saliency=join_saliency(saliency, [(piece.first, piece.stop) for piece in pieces]),
    )
    if each is None:
        return joined, None
    return joined, Confidence(whole, np.concatenate([part.moments for part in each])[places])


def bounded(sizes: Sequence[int], *, most: int, total: int) -> Iterator[slice]:
    """Yield slices of consecutive items with at most ``most`` items and a summed size of at most ``total``.

    An item larger than ``total`` forms a separate slice.

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
