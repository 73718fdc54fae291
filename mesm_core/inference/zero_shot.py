"""Moments without a trained model, from the similarity of frames and a sentence in one space, such as CLIP's.

Frames that look alike and follow each other are grouped into segments, and runs of segments are ranked by how much the
similarity inside exceeds that outside. Based on the training-free methods TFVTG (Zheng et al., ECCV 2024: inside
against outside) and TAG (Lee et al., 2025: pooling in time, coherent segments, adjusted similarities); the formulas
are our own. NumPy only; frames are (L, D), evenly spread over the video.
"""

from __future__ import annotations

import heapq

import numpy as np

from mesm_core.metrics.nms import PEOPLE_NMS, temporal_nms

SMOOTHING_SECONDS = 1.0
"""Standard deviation of the Gaussian that smooths in time."""
SEGMENT_SECONDS = 2.5
"""Mean length of the finest segments: short against the moments people describe (8 seconds in Charades-STA)."""
LONGEST_RUN = 64
"""Segments of one level that a candidate joins at most; longer moments are runs of coarser segments."""
MOST_MOMENTS = 10
"""Moments of a query, as many as the trained model has slots."""
FLAT = 1e-6
"""Standard deviation of a video's similarities below which they are treated as constant."""
DECIMALS = 4


def similarities(frames: np.ndarray, sentences: np.ndarray) -> np.ndarray:
    """Return (L, n) cosines of (L, D) frames and (n, D) sentences, all of length 1.

    >>> similarities(np.eye(2), np.array([[0.6, 0.8]])).tolist()
    [[0.6], [0.8]]
    """
    cosines: np.ndarray = frames @ sentences.T
    return cosines


def standardised(similarity: np.ndarray) -> np.ndarray:
    """Return (L, n) similarities with mean 0 and standard deviation 1 over each video's frames; zeros if all are equal.

    CLIP's cosines lie in a narrow band whose centre and width depend on the video and the sentence, so only their
    differences within a video are meaningful. Unlike the minimum and maximum, the mean and the deviation are robust to
    single frames, such as a black one.

    >>> standardised(np.array([[0.1], [0.3]])).round(6).tolist(), standardised(np.full((2, 1), 0.2)).tolist()
    ([[-1.0], [1.0]], [[0.0], [0.0]])
    """
    centred = similarity - similarity.mean(axis=0)
    deviation = centred.std(axis=0)
    scaled: np.ndarray = np.where(deviation > FLAT, centred / np.maximum(deviation, FLAT), 0)
    return scaled


def smoothed(values: np.ndarray, deviation: float) -> np.ndarray:
    """Return (L, n) values smoothed over the first axis by a Gaussian, which is truncated and renormalised at the ends.

    Args:
        deviation: standard deviation of the Gaussian, in frames.

    >>> smoothed(np.array([[0.0], [0.0], [1.0], [0.0], [0.0]]), 0.5).round(2).ravel().tolist()
    [0.0, 0.11, 0.79, 0.11, 0.0]
    """
    reach = min(int(np.ceil(3 * deviation)), len(values) - 1)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(deviation, 1e-9)) ** 2)
    total, weight = np.zeros(values.shape), np.zeros((len(values), 1))
    for shift, share in zip(range(-reach, reach + 1), weights, strict=True):
        into, out_of = (
            slice(max(-shift, 0), len(values) - max(shift, 0)),
            slice(max(shift, 0), len(values) + min(shift, 0)),
        )
        total[into] += share * values[out_of]
        weight[into] += share
    mean: np.ndarray = total / weight
    return mean


def merging_order(frames: np.ndarray) -> np.ndarray:
    """Return the (L - 1,) boundaries between (L, D) frames, from the least to the most significant.

    Boundary b lies before frame b. Neighbouring segments are merged one pair at a time, always the pair whose merging
    adds least to the squared distances of frames from their segment's mean (Ward's criterion, neighbours only). The
    order of the merges is a tree of coherent segments, of which ``segment_edges`` takes a level. O(L log L) merges.

    >>> merging_order(np.array([[0.0], [0.1], [5.0], [5.0], [9.0]])).tolist()
    [3, 1, 4, 2]
    """
    length = len(frames)
    sums, counts = frames.astype(np.float64), np.ones(length)
    before, after = np.arange(-1, length - 1), np.arange(1, length + 1)
    version = np.zeros(length, np.int64)
    first_costs = 0.5 * (np.diff(sums, axis=0) ** 2).sum(axis=1)
    heap = [(cost, boundary, 0) for boundary, cost in enumerate(first_costs.tolist(), start=1)]
    heapq.heapify(heap)

    def push_cost(boundary: int) -> None:
        left = before[boundary]
        difference = sums[left] / counts[left] - sums[boundary] / counts[boundary]
        weight = counts[left] * counts[boundary] / (counts[left] + counts[boundary])
        version[boundary] += 1
        heapq.heappush(heap, (float(weight * (difference @ difference)), boundary, int(version[boundary])))

    order: list[int] = []
    while heap:
        _, boundary, when = heapq.heappop(heap)
        if when != version[boundary]:
            continue  # outdated: its cost has changed
        left, right = int(before[boundary]), int(after[boundary])
        sums[left] += sums[boundary]
        counts[left] += counts[boundary]
        after[left] = right
        version[boundary] = -1
        order.append(boundary)
        if left > 0:
            push_cost(left)
        if right < length:
            before[right] = left
            push_cost(right)
    return np.array(order, np.int64)


def segment_edges(order: np.ndarray, count: int) -> np.ndarray:
    """Return the (count + 1,) edges of the ``count`` segments, at least one, that merging in ``order`` leaves.

    >>> segment_edges(np.array([3, 1, 4, 2]), 3).tolist()
    [0, 2, 4, 5]
    """
    length = len(order) + 1
    kept = np.sort(order[length - min(max(count, 1), length) :])
    return np.concatenate([[0], kept, [length]])


def candidate_spans(order: np.ndarray, duration: float) -> np.ndarray:
    """Return (n, 2) spans [first frame, frame after the last]: all runs of up to ``LONGEST_RUN`` segments.

    The finest segments last ``SEGMENT_SECONDS`` on average; where a run cannot cover the video, there are levels with
    half as many segments each, until one can.

    >>> candidate_spans(np.array([3, 1, 4, 2]), 5.0).tolist()
    [[0, 2], [2, 5], [0, 5]]
    """
    spans = []
    count = max(round(duration / SEGMENT_SECONDS), 1)
    while True:
        edges = segment_edges(order, count)
        for run in range(1, min(LONGEST_RUN, len(edges) - 1) + 1):
            spans.append(np.stack([edges[:-run], edges[run:]], axis=1))
        if len(edges) - 1 <= LONGEST_RUN:
            return np.concatenate(spans)
        count = (len(edges) - 1) // 2


def contrast(series: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Return how well each of (n, 2) spans of frames explains an (L,) series: a score in [-1, 1].

    It is (mean inside - mean outside) / deviation · sqrt(p · (1 - p)) with p the span's share of the frames, which is
    the correlation of the series with being inside. The root is the prior of length: without it single outstanding
    frames would always win. It grows up to p = 1/2, so of two spans with equal contrast the longer one has the higher
    score, up to half of the video. The whole video, with no frames outside, has the score 0.

    >>> contrast(np.array([0.0, 1.0, 1.0, 0.0]), np.array([[1, 3], [1, 2], [0, 4], [0, 1]])).round(2).tolist()
    [1.0, 0.58, 0.0, -0.58]
    """
    length = len(series)
    centred = series - series.mean()
    deviation = centred.std()
    if not deviation > FLAT:
        return np.zeros(len(spans))
    sums = np.concatenate([[0.0], np.cumsum(centred)])
    inside = spans[:, 1] - spans[:, 0]
    total = sums[spans[:, 1]] - sums[spans[:, 0]]
    # Centred values sum to 0, so those outside sum to -total, and the difference of the means is total / (p · (1 - p)).
    share = inside / length
    spread = np.sqrt(share * (1 - share))
    found: np.ndarray = np.divide(total, length * deviation * spread, out=np.zeros(len(spans)), where=spread > 0)
    return found.clip(-1, 1)


def rank_moments(series: np.ndarray, spans: np.ndarray, duration: float) -> np.ndarray:
    """Return (n, 3) rows [start s, end s, score in [0, 1]] by decreasing score, without near-duplicates.

    Only spans with a higher mean inside than outside are moments, at most ``MOST_MOMENTS``. If there is none, the
    whole video is returned with score 0.

    >>> rank_moments(np.array([0.0, 1.0, 1.0, 0.0]), np.array([[0, 1], [1, 3], [3, 4]]), 8.0).tolist()
    [[2.0, 6.0, 1.0]]
    >>> rank_moments(np.zeros(4), np.array([[0, 2]]), 8.0).tolist()
    [[0.0, 8.0, 0.0]]
    """
    scores = contrast(series, spans)
    better = scores > FLAT
    if not better.any():
        return np.array([[0.0, duration, 0.0]])
    seconds = spans[better] * (duration / len(series))
    windows = np.concatenate([np.round(seconds, DECIMALS), np.round(scores[better], DECIMALS)[:, None]], axis=1)
    windows[:, :2] = np.minimum(windows[:, :2], duration)
    return temporal_nms(windows, threshold=PEOPLE_NMS, max_after=MOST_MOMENTS)


def spans_of(frames: np.ndarray, duration: float) -> np.ndarray:
    """Return (n, 2) candidate spans of a video. They do not depend on the sentences.

    Args:
        frames: (L, D) float32, of length 1, evenly spread over the video; duration: of the video, in seconds.
    """
    return candidate_spans(merging_order(smoothed(frames, SMOOTHING_SECONDS * len(frames) / duration)), duration)


def find_moments(
    frames: np.ndarray, sentences: np.ndarray, duration: float, spans: np.ndarray | None = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return each sentence's moments and its saliency.

    Args:
        frames: (L, D) float32, of length 1, evenly spread over the video; sentences: (n, D) float32, of length 1, in
            the same space; duration: of the video, in seconds; spans: the result of ``spans_of``, if it is known.

    Returns:
        One (m, 3) array per sentence, as from ``rank_moments``, and one (L,) float32 array per sentence: its
        standardised and smoothed similarity to each frame. Negative saliency is below the video's mean.

    >>> frames = np.repeat(np.eye(3, dtype=np.float32), 8, axis=0)
    >>> (windows,), (saliency,) = find_moments(frames, frames[8:9], duration=24.0)
    >>> windows[0, :2].tolist(), saliency.shape, int(saliency.argmax())
    ([8.0, 16.0], (24,), 11)
    """
    deviation = SMOOTHING_SECONDS * len(frames) / duration
    saliency = smoothed(standardised(similarities(frames, sentences)), deviation)  # (L, n)
    spans = spans_of(frames, duration) if spans is None else spans
    windows = [rank_moments(series, spans, duration) for series in saliency.T]
    return windows, [np.ascontiguousarray(series, dtype=np.float32) for series in saliency.T]
