"""Temporal non-maximum suppression (docs/evaluation.md)."""

from __future__ import annotations

import numpy as np

from mesm_core.errors import ConfigError

NO_NMS = -1.0
PEOPLE_NMS = 0.7
"""Threshold for answers that people read: above this overlap two windows look the same."""


def check_nms(threshold: float) -> float:
    """Return ``threshold`` if it is valid for temporal NMS: in (0, 1], or -1 for no suppression.

    Raises:
        ConfigError: it is another number.
    """
    if threshold == NO_NMS or 0 < threshold <= 1:
        return threshold
    raise ConfigError(f"nms is an overlap in (0, 1], or -1 for none, not {threshold:g}.")


def temporal_nms(
    windows: np.ndarray, *, threshold: float, max_before: int | None = None, max_after: int | None = None
) -> np.ndarray:
    """Select windows greedily by score, and drop those that overlap a selected one too much.

    The overlap is the length of the intersection of two windows divided by the length of their hull.

    Args:
        windows: (n, 3) rows [start, end, score].
        threshold: overlap above which a window is dropped; below 0, all windows are returned as they are.
        max_before, max_after: maximum number of windows before and after suppression.

    >>> temporal_nms(np.array([[0.0, 10, 0.5], [1, 10, 0.9], [20, 30, 0.1]]), threshold=0.5).tolist()
    [[1.0, 10.0, 0.9], [20.0, 30.0, 0.1]]
    """
    windows = np.asarray(windows, float).reshape(-1, 3)
    rows = kept_rows(windows, threshold=threshold, max_before=max_before, max_after=max_after)
    selected: np.ndarray = windows[rows]
    return selected


def kept_rows(
    windows: np.ndarray, *, threshold: float, max_before: int | None = None, max_after: int | None = None
) -> np.ndarray:
    """Return the (m,) int64 rows that ``temporal_nms`` selects, in its order; arguments as for ``temporal_nms``."""
    if threshold < 0:
        return np.arange(len(windows))
    rows = np.argsort(-windows[:, 2], kind="stable")[:max_before]
    kept: list[int] = []
    while len(rows) and (max_after is None or len(kept) < max_after):
        best, rows = int(rows[0]), rows[1:]
        kept.append(best)
        (start, end), others = windows[best, :2], windows[rows]
        inner = np.minimum(others[:, 1], end) - np.maximum(others[:, 0], start)
        hull = np.maximum(others[:, 1], end) - np.minimum(others[:, 0], start)
        rows = rows[~(np.maximum(inner, 0) > threshold * hull)]
    return np.array(kept, np.int64)
