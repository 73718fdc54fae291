"""Recall of moments in a collection of videos: video corpus moment retrieval (VCMR).

A result is right if it is in the right video and its IoU with a described window reaches a threshold. Source: Escorcia
et al., "Temporal Localization of Moments in Video Collections with Natural Language" (2019); Lei et al., "TVR" (ECCV
2020), who call recall of videos alone video retrieval (VR). NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mesm_core.metrics.moments import iou

VIDEO_DEPTHS = (1, 10, 100)
MOMENT_DEPTHS = (1, 10)
THRESHOLDS = (0.5, 0.7)
Result = tuple[str, float, float]
"""Video, start and end in seconds."""


def video_rank(found: Sequence[Result], video: str) -> float:
    """Return the rank of a video among the distinct videos of results that are ordered best first; inf if absent.

    >>> video_rank([("a", 0, 5), ("a", 9, 12), ("b", 0, 3)], "b")
    2
    """
    distinct = list(dict.fromkeys(name for name, _, _ in found))
    return distinct.index(video) + 1 if video in distinct else float("inf")


def moment_rank(found: Sequence[Result], video: str, windows: Sequence[tuple[float, float]], threshold: float) -> float:
    """Return the rank of the first result in the right video with an IoU of at least ``threshold``; inf if none has it.

    >>> moment_rank([("a", 0, 5), ("b", 0, 5), ("b", 0, 3)], "b", [(0.0, 3.0)], 0.7)
    3
    """
    own = [rank for rank, (name, _, _) in enumerate(found, start=1) if name == video]
    if not own:
        return float("inf")
    spans = np.array([found[rank - 1][1:] for rank in own], np.float64)
    best = iou(spans[:, None], np.array(windows, np.float64)).max(axis=1)  # (n,)
    hits = np.flatnonzero(best >= threshold)
    return own[hits[0]] if len(hits) else float("inf")


def corpus_recall(
    found: Sequence[Sequence[Result]],
    truth: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    *,
    others: Sequence[Sequence[Result]] | None = None,
) -> Mapping[str, float]:
    """Return recall in %: ``VR@1`` to ``VR@100`` of videos, and ``R1@0.5`` to ``R10@0.7`` of moments.

    Args:
        found: results of each query, best first; truth: video and described windows of each query.
        others: results that come after them and count for the recall of videos only.
    """
    rest = others or [()] * len(found)
    everything = [[*results, *after] for results, after in zip(found, rest, strict=True)]
    videos = np.array([video_rank(results, video) for results, (video, _) in zip(everything, truth, strict=True)])
    figures = {f"VR@{depth}": 100 * float((videos <= depth).mean()) for depth in VIDEO_DEPTHS}
    for threshold in THRESHOLDS:
        ranks = np.array([moment_rank(r, *own, threshold) for r, own in zip(found, truth, strict=True)])
        figures |= {f"R{depth}@{threshold}": 100 * float((ranks <= depth).mean()) for depth in MOMENT_DEPTHS}
    return figures
