"""Divides queries into groups that are encoded together, and groups into batches (docs/datasets.md, "Rules")."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mesm_core.errors import DataError
from mesm_core.types import Query

Group = tuple[int, ...]
"""Indices of the queries that are encoded together, by increasing start."""


def make_groups(queries: Sequence[Query], *, max_size: int, rng: np.random.Generator | None) -> list[Group]:
    """Return every query's index in exactly one group; a group's queries share a source.

    With ``max_size`` > 0, a video's queries are divided into groups of at most that size: in an order shuffled by
    ``rng``, or by start if ``rng`` is None, as in evaluation, which makes the groups deterministic. The queries of a
    group are ordered by start.
    """
    by_video: dict[str, list[int]] = {}
    for index, query in enumerate(queries):
        by_video.setdefault(query.group, []).append(index)
    groups: list[Group] = []
    for members in by_video.values():
        order = sorted(members, key=lambda i: (queries[i].start, i))
        if rng is not None and max_size > 0:
            order = [order[i] for i in rng.permutation(len(order))]
        size = max_size if max_size > 0 else len(order)
        for first in range(0, len(order), size):
            part = order[first : first + size]
            groups.append(tuple(sorted(part, key=lambda i: (queries[i].start, i))))
    return groups


def train_batches(
    groups: Sequence[Group], videos: Sequence[str], *, batch_size: int, rng: np.random.Generator
) -> list[list[Group]]:
    """Return the groups in batches of at least two groups, with at most one group per video.

    Each video's groups go to the smallest batches, with ties drawn at random, so batch sizes differ by at most one
    group unless one video has more groups than there are batches.

    Args:
        groups: groups to distribute; videos: the video of each group.
        batch_size: the most groups in a batch.

    Raises:
        DataError: there are fewer than two videos, so no negatives can be drawn.
    """
    by_video: dict[str, list[int]] = {}
    for index, vid in enumerate(videos):
        by_video.setdefault(vid, []).append(index)
    if len(by_video) < 2:
        raise DataError(
            "Training needs queries of at least two videos: each query is contrasted with one of another video.",
            hint="Add annotations of a second video.",
        )
    if batch_size < 2:
        raise DataError(
            "train.batch_size = 1 leaves no other video in a batch to take negatives from.",
            hint="Use --set train.batch_size=2 or more.",
        )
    count = max(-(-len(groups) // batch_size), *map(len, by_video.values()))
    batches: list[list[Group]] = [[] for _ in range(count)]
    loads = np.zeros(count)
    names = list(by_video)
    for place in sorted(rng.permutation(len(names)), key=lambda i: -len(by_video[names[i]])):
        members = rng.permutation(by_video[names[place]])
        emptiest = np.lexsort((rng.random(count), loads))[: len(members)]
        for batch, member in zip(emptiest, members, strict=True):
            batches[batch].append(groups[member])
            loads[batch] += 1
    full = [batch for batch in batches if len(batch) > 1]
    return [full[i] for i in rng.permutation(len(full))]


def eval_batches(groups: Sequence[Group], *, batch_size: int) -> list[list[Group]]:
    """Return the groups in order, ``batch_size`` at a time."""
    return [list(groups[first : first + batch_size]) for first in range(0, len(groups), batch_size)]
