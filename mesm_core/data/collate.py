"""Groups of queries -> a Batch: padding, masks, and every random draw of a training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mesm_core.arrays import pad
from mesm_core.data.frames import draw_masked_words, label_frames
from mesm_core.text.near_duplicates import Described
from mesm_core.types import Batch, Inputs, Query, Targets, TextFeatures, Words


@dataclass(frozen=True, slots=True)
class Item:
    """A query with its text encoded."""

    query: Query
    text: TextFeatures
    words: Words | None = None


@dataclass(frozen=True)
class Framing:
    """How seconds are converted to frames and spans.

    ``clip_len``: seconds per frame, or -1 if the frames spread evenly over the duration;
    ``span_unit``: windows are divided by the ``duration``, or by the total length of the ``frames``;
    ``context``: SS-MESM attends to the query's ``video``, or to every video of its ``group``;
    ``max_windows``: queries with more windows keep a random subset of this size.
    """

    clip_len: float = -1
    span_unit: str = "duration"
    context: str = "video"
    max_windows: int = 5


def collate(
    groups: Sequence[Sequence[Item]],
    videos: dict[str, np.ndarray],
    *,
    framing: Framing,
    rng: np.random.Generator | None,
    described: Described | None = None,
) -> Batch:
    """Return a batch; it has targets if ``rng`` is given, which makes all random draws.

    Args:
        groups: the batch's groups in order, their queries in order.
        videos: (L, Dv+2) float32 frames of every video of the batch.
        described: what the videos show, to train the decoder with negatives; default: without.
    """
    targets = None if rng is None else collate_targets(groups, videos, framing=framing, rng=rng, described=described)
    queries = tuple(item.query for group in groups for item in group)
    return Batch(queries=queries, inputs=collate_inputs(groups, videos, framing=framing), targets=targets)


def collate_inputs(groups: Sequence[Sequence[Item]], videos: dict[str, np.ndarray], *, framing: Framing) -> Inputs:
    """Return the model's inputs: each video once, and each query's words, padded to the longest."""
    items = [item for group in groups for item in group]
    row = {vid: number for number, vid in enumerate(videos)}
    index = np.array([row[item.query.vid] for item in items])
    video, video_mask = pad(list(videos.values()))
    words, words_mask = pad([item.text.words for item in items])
    places = frame_places(video_mask, index) | sentence_places(index, len(videos))
    if framing.context == "group":
        rows = [list(dict.fromkeys(row[item.query.vid] for item in group)) for group in groups]
        places |= group_context(rows, video_mask, [len(group) for group in groups])
    return Inputs(
        video=torch.from_numpy(video),
        video_mask=torch.from_numpy(video_mask),
        video_index=torch.from_numpy(index),
        words=torch.from_numpy(words),
        words_mask=torch.from_numpy(words_mask),
        **places,
    )


def group_context(rows: Sequence[Sequence[int]], video_mask: np.ndarray, sizes: Sequence[int]) -> dict[str, Tensor]:
    """Return the context and sentence fields of ``Inputs``: for each group the frames of its videos, concatenated.

    Args:
        rows: each group's rows of ``video_mask`` (V, T); sizes: each group's number of queries.
    """
    length = video_mask.shape[1]
    frames = [np.concatenate([np.flatnonzero(video_mask[r]) + r * length for r in group]) for group in rows]
    index, mask = pad(frames)
    contexts = np.repeat(np.arange(len(rows)), sizes)
    return {
        "context": torch.from_numpy(index),
        "context_mask": torch.from_numpy(mask),
        "context_index": torch.from_numpy(contexts),
        **sentence_places(contexts, len(rows)),
    }


def frame_places(video_mask: np.ndarray, video_index: np.ndarray) -> dict[str, Tensor]:
    """Return the fields of ``Inputs`` on the queries' frames.

    Args:
        video_mask: (V, T) bool; video_index: (Q,) row of each query's video.

    >>> frame_places(np.array([[True, False], [True, True]]), np.array([1, 0]))["sources"].tolist()
    [2, 3, 0]
    """
    mask = video_mask[video_index]  # (Q, T)
    query, frame = mask.nonzero()
    sources = video_index[query] * mask.shape[1] + frame
    fields = {"frames_mask": mask, "frames": np.flatnonzero(mask), "sources": sources}
    return {name: torch.from_numpy(value) for name, value in fields.items()}


def sentence_places(context: np.ndarray, contexts: int) -> dict[str, Tensor]:
    """Return the sentence fields of ``Inputs``, of the number of each query's context (Q,).

    >>> fields = sentence_places(np.array([0, 1, 0]), 2)
    >>> fields["sentence"].tolist(), fields["sentence_mask"].tolist()
    ([0, 2, 1], [[True, True], [True, False]])
    """
    counts = np.bincount(context, minlength=contexts)
    longest = int(counts.max())
    mask = np.arange(longest) < counts[:, None]
    place = np.empty_like(context)
    place[np.argsort(context, kind="stable")] = np.flatnonzero(mask)
    return {"sentence": torch.from_numpy(place), "sentence_mask": torch.from_numpy(mask)}


def collate_targets(
    groups: Sequence[Sequence[Item]],
    videos: dict[str, np.ndarray],
    *,
    framing: Framing,
    rng: np.random.Generator,
    described: Described | None = None,
) -> Targets:
    """Return the ground truth and the random draws of a training batch; every query has windows and words."""
    items = [item for group in groups for item in group]
    group = np.repeat(np.arange(len(groups)), [len(members) for members in groups])
    lengths = [len(videos[item.query.vid]) for item in items]
    labels = [
        label_frames(item.query, frames=length, clip_len=framing.clip_len, rng=rng)
        for item, length in zip(items, lengths, strict=True)
    ]
    spans, spans_mask = pad(
        [_spans(item.query, length, framing, rng) for item, length in zip(items, lengths, strict=True)]
    )
    saliency = np.zeros((len(items), max(len(video) for video in videos.values())), np.float32)
    for query, label in enumerate(labels):
        saliency[query, : len(label.saliency)] = label.saliency
    moment_frames, moment_mask = pad([label.inside for label in labels])
    negatives = draw_negatives(group, rng)
    words = [item.words for item in items if item.words is not None]
    return Targets(
        spans=torch.from_numpy(spans),
        spans_mask=torch.from_numpy(spans_mask),
        group=torch.from_numpy(group),
        overlap=torch.from_numpy(moment_overlap(spans, spans_mask, group)),
        moment_frames=torch.from_numpy(moment_frames),
        moment_mask=torch.from_numpy(moment_mask),
        saliency=torch.from_numpy(saliency),
        positive_frames=torch.from_numpy(np.stack([label.positive for label in labels])),
        negative_frames=torch.from_numpy(np.stack([label.negative for label in labels])),
        triplet_mask=torch.tensor([label.contrast for label in labels]),
        negative_query=torch.from_numpy(negatives),
        masked_words=torch.from_numpy(pad([draw_masked_words(w.weights, rng) for w in words])[0]),
        unknown_words=torch.from_numpy(pad([w.unknown for w in words])[0]),
        word_labels=torch.from_numpy(pad([w.labels for w in words])[0]),
        absent=None if described is None else absent_pairs(items, negatives, described),
    )


def absent_pairs(items: Sequence[Item], negatives: np.ndarray, described: Described) -> Tensor:
    """Return (Q,) bool: whether the video of each query has no answer to the query with the index in ``negatives``."""
    pairs = zip(items, negatives.tolist(), strict=True)
    return torch.tensor(
        [not described.may_show(item.query.group, items[other].query.sentence) for item, other in pairs]
    )


def moment_overlap(spans: np.ndarray, mask: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the gIoU (Q, Q) of two queries' moments, each from its first to its last window; -inf across groups.

    Args:
        spans: (Q, M, 2) center and width, with ``mask`` (Q, M); group: (Q,).

    >>> spans = np.array([[[0.25, 0.5]], [[0.5, 0.5]], [[0.5, 0.5]]])
    >>> moment_overlap(spans, np.ones((3, 1), bool), np.array([0, 0, 1]))[0].round(2).tolist()
    [1.0, 0.33, -inf]
    """
    center, half = spans[..., 0], spans[..., 1] / 2
    start = np.where(mask, center - half, np.inf).min(axis=1)
    end = np.where(mask, center + half, -np.inf).max(axis=1)
    lengths = (end - start)[:, None] + (end - start)
    hull = np.maximum(end[:, None], end) - np.minimum(start[:, None], start)
    inner = np.maximum(lengths - hull, 0)
    overlap = inner / (lengths - inner) + (lengths - inner) / hull - 1
    same: np.ndarray = np.where(group[:, None] == group, overlap, -np.inf).astype(spans.dtype)
    return same


def draw_negatives(group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return for every query (Q,) the index of a negative, drawn uniformly from the queries of other groups.

    Args:
        group: (Q,) group of each query; the queries of a group are consecutive, and there are at least two groups.
    """
    sizes = np.bincount(group)
    ends = np.cumsum(sizes)
    others = len(group) - sizes[group]
    drawn = rng.integers(others)
    # Indices from the start of the query's own group on are shifted past the group.
    negatives: np.ndarray = np.where(drawn < (ends - sizes)[group], drawn, drawn + sizes[group])
    return negatives


def _spans(query: Query, frames: int, framing: Framing, rng: np.random.Generator) -> np.ndarray:
    """Return the (m, 2) centers and widths of a query's windows, as shares of the video."""
    windows = np.array(query.windows, np.float64)
    if len(windows) > framing.max_windows:
        windows = windows[np.sort(rng.choice(len(windows), framing.max_windows, replace=False))]
    windows /= frames * framing.clip_len if framing.span_unit == "frames" else query.duration
    start, end = windows[:, 0], windows[:, 1]
    spans: np.ndarray = np.stack([(start + end) / 2, end - start], axis=-1).astype(np.float32)
    return spans
