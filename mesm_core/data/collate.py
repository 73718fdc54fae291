"""Groups of queries -> a Batch: padding, masks, and every random draw of a training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from mesm_core.data.frames import PAIRS, draw_frames, draw_masked_words, frame_range
from mesm_core.types import Batch, Inputs, Query, Targets, TextFeatures, Words

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Item:
    """A query with its text encoded."""

    query: Query
    text: TextFeatures
    words: Words | None = None


def collate_inputs(groups: Sequence[Sequence[Item]], videos: dict[str, np.ndarray]) -> Inputs:
    """Return the model's inputs: each video once, padded to the longest, each query's words likewise.

    Args:
        groups: the batch's groups in order, their queries in order.
        videos: (L, Dv+2) float32 frames of every video of the batch.
    """
    items = [item for group in groups for item in group]
    row = {vid: number for number, vid in enumerate(videos)}
    video, video_mask = pad(list(videos.values()))
    words, words_mask = pad([item.text.words for item in items])
    return Inputs(
        video=torch.from_numpy(video),
        video_mask=torch.from_numpy(video_mask),
        video_index=torch.tensor([row[item.query.vid] for item in items]),
        words=torch.from_numpy(words),
        words_mask=torch.from_numpy(words_mask),
        sentences=torch.from_numpy(np.stack([item.text.sentence for item in items])),
    )


def collate_targets(
    groups: Sequence[Sequence[Item]],
    videos: dict[str, np.ndarray],
    *,
    clip_len: float,
    rng: np.random.Generator,
) -> Targets:
    """Return the truth of a training batch and the draws of its step.

    Args:
        groups, videos: as for ``collate_inputs``; every query has one window and its words.
        clip_len: seconds a frame stands for, or -1.
        rng: where negatives, frames and masked words are drawn from.
    """
    items = [item for group in groups for item in group]
    group = np.repeat(np.arange(len(groups)), [len(members) for members in groups])
    lengths = [len(videos[item.query.vid]) for item in items]
    ranges = [
        frame_range(item.query.windows[0], duration=item.query.duration, frames=length, clip_len=clip_len)
        for item, length in zip(items, lengths, strict=True)
    ]
    drawn = [draw_frames(first, last, length, rng) for (first, last), length in zip(ranges, lengths, strict=True)]
    saliency = np.zeros((len(items), max(len(video) for video in videos.values())), np.float32)
    for query, (first, last) in enumerate(ranges):
        saliency[query, first : last + 1] = 1
    moment_frames, moment_mask = pad([np.arange(first, last + 1) for first, last in ranges])
    words = [item.words for item in items if item.words is not None]
    return Targets(
        spans=_spans([item.query for item in items]),
        spans_mask=torch.ones(len(items), 1, dtype=torch.bool),
        group=torch.from_numpy(group),
        moment_frames=torch.from_numpy(moment_frames),
        moment_mask=torch.from_numpy(moment_mask),
        saliency=torch.from_numpy(saliency),
        positive_frames=torch.from_numpy(np.stack([positive for positive, _, _ in drawn]).reshape(-1, PAIRS)),
        negative_frames=torch.from_numpy(np.stack([negative for _, negative, _ in drawn]).reshape(-1, PAIRS)),
        triplet_mask=torch.tensor([outside for _, _, outside in drawn]),
        negative_query=torch.from_numpy(draw_negatives(group, rng)),
        masked_words=torch.from_numpy(pad([draw_masked_words(w.weights, rng) for w in words])[0]),
        unknown_words=torch.from_numpy(pad([w.unknown for w in words])[0]),
        word_labels=torch.from_numpy(pad([w.labels for w in words])[0]),
    )


def collate(
    groups: Sequence[Sequence[Item]],
    videos: dict[str, np.ndarray],
    *,
    clip_len: float,
    rng: np.random.Generator | None,
) -> Batch:
    """Return a batch, with targets where ``rng`` is given."""
    targets = None if rng is None else collate_targets(groups, videos, clip_len=clip_len, rng=rng)
    queries = tuple(item.query for group in groups for item in group)
    return Batch(queries=queries, inputs=collate_inputs(groups, videos), targets=targets)


def draw_negatives(group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for every query (Q,) the index of a query of another group, each as likely as any other.

    Args:
        group: (Q,) group of each query, each group's queries in a row; at least two groups.
    """
    sizes = np.bincount(group)
    ends = np.cumsum(sizes)
    others = len(group) - sizes[group]
    drawn = rng.integers(others)
    # Numbers below the own group's first index stay; the rest jump over the group.
    negatives: np.ndarray = np.where(drawn < (ends - sizes)[group], drawn, drawn + sizes[group])
    return negatives


def pad(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the arrays stacked, zero-padded on their first axis, and a mask that is True where they are.

    >>> pad([np.array([1, 2]), np.array([3])])[0].tolist()
    [[1, 2], [3, 0]]
    """
    longest = max(len(array) for array in arrays)
    out = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
    mask = np.zeros((len(arrays), longest), np.bool_)
    for row, array in enumerate(arrays):
        out[row, : len(array)] = array
        mask[row, : len(array)] = True
    return out, mask


def _spans(queries: Sequence[Query]) -> Tensor:
    windows = np.array([query.windows[0] for query in queries]) / np.array([[q.duration] for q in queries])
    start, end = windows[:, 0], windows[:, 1]
    spans = np.stack([(start + end) / 2, end - start], axis=-1).astype(np.float32)
    return torch.from_numpy(spans).unsqueeze(1)
