"""Order of the moments that a search found in several parts of videos."""

from __future__ import annotations

from collections.abc import Sequence

from mesm_core.metrics.nms import PEOPLE_NMS
from mesm_core.search.results import Found


def interleaved(found: Sequence[Sequence[Found]]) -> list[Found]:
    """Return the best moment of each part by similarity, then all second ones, and so on."""
    deepest = max((len(moments) for moments in found), default=0)
    return [moments[rank] for rank in range(deepest) for moments in found if rank < len(moments)]


def distinct(found: Sequence[Found]) -> list[Found]:
    """Return the moments without those that nearly equal an earlier one of the same video."""
    kept: list[Found] = []
    for one in found:
        same = [other for other in kept if other.video.id == one.video.id]
        if not any(_iou(one, other) > PEOPLE_NMS for other in same):
            kept.append(one)
    return kept


def _iou(one: Found, other: Found) -> float:
    together = min(one.end, other.end) - max(one.start, other.start)
    union = max(one.end, other.end) - min(one.start, other.start)
    return max(together, 0.0) / union if union > 0 else 1.0
