"""Data types that the packages exchange: frozen dataclasses, with shapes and units.

Shapes: Q queries in a batch, V videos, T frames, W words, G groups, N slots, C frames of the longest moment,
M windows, d hidden size, Dv and Dt raw video and text widths. Masks are True where valid. Times are seconds
unless a name says ``span`` (center and width in [0, 1]) or ``frame`` (an inclusive index).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


CLIP_SECONDS = 2
"""Length of the clips that annotators score, in seconds."""

ALIGNED = 64
"""Bytes: tensors in a packed batch start at multiples of it."""

_Moved = TypeVar("_Moved", "Inputs", "Targets")


@dataclass(frozen=True, slots=True)
class Highlights:
    """Saliency of a video's clips: ``scores[i]`` are the annotators' scores (0-4) of clip ``clips[i]``."""

    clips: tuple[int, ...]
    scores: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Query:
    """A sentence about a video, with the windows that it describes if they are known.

    ``source``: queries with the same source form a group (default: the video); ``highlights``: saliency labels;
    ``repaired``: whether annotated windows were inverted or outside the video.
    """

    qid: int | str | None
    vid: str
    sentence: str
    duration: float
    windows: tuple[tuple[float, float], ...] = ()
    source: str | None = None
    highlights: Highlights | None = None
    repaired: bool = False

    @property
    def group(self) -> str:
        """Name of the query's group: its source, or else its video."""
        return self.source or self.vid

    @property
    def start(self) -> float:
        """Start of the first window in seconds, or 0 without windows."""
        return self.windows[0][0] if self.windows else 0.0


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """One encoded sentence: ``words`` (w, Dt) float32."""

    words: np.ndarray


@dataclass(frozen=True, slots=True)
class Words:
    """Tokens of a sentence for masked-word reconstruction; all fields have the same length, at most ``max_words``.

    ``labels``: class of each word; ``unknown``: whether the word is not a label word; ``weights``: 2 for nouns, verbs,
    adjectives and adverbs, 1 for other words, 0 for start and end tokens.
    """

    tokens: tuple[str, ...]
    labels: np.ndarray
    unknown: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Inputs:
    """The model's inputs for prediction, without ground truth and random draws.

    ``video`` (V, T, Dv+2) float32 with ``video_mask`` (V, T) bool; ``video_index`` (Q,) int64: row of each query's
    video; ``words`` (Q, W, Dt) float32 with ``words_mask`` (Q, W) bool; ``frames_mask`` (Q, T) bool: valid frames of
    each query's video; ``frames`` (N,) int64: their positions q·T + t in rising order, for packing; ``sources`` (N,)
    int64: positions v·T + t of the same frames in the videos; ``context`` (K, T') int64 with
    ``context_mask``: rows of the flattened (V·T) frames that SS-MESM attends to, with ``context_index`` (Q,) int64: row
    of each query's context. These are None if the context of each query is its own video. ``sentence`` (Q,) int64:
    position k·S + s of each query when the queries of every context or video are put in a row of S, with
    ``sentence_mask`` (K or V, S) bool.
    """

    video: Tensor
    video_mask: Tensor
    video_index: Tensor
    words: Tensor
    words_mask: Tensor
    frames_mask: Tensor
    frames: Tensor
    sources: Tensor
    sentence: Tensor
    sentence_mask: Tensor
    context: Tensor | None = None
    context_mask: Tensor | None = None
    context_index: Tensor | None = None


@dataclass(frozen=True)
class Targets:
    """The ground truth of a training batch, and its random draws: ``forward`` itself draws only dropout.

    ``spans`` (Q, M, 2) center and width, with ``spans_mask`` (Q, M); ``group`` (Q,) int64; ``overlap`` (Q, Q) float32:
    gIoU of two queries' moments, each from its first to its last window, or -inf if they belong to different groups;
    ``moment_frames`` (Q, C) int64 with ``moment_mask`` (Q, C): the frames inside the moment;
    ``saliency`` (Q, T) float32 labels (0 outside); ``positive_frames``, ``negative_frames`` (Q, P) int64, with
    ``triplet_mask`` (Q,), False if no frame is outside the moment;
    ``negative_query`` (Q,) int64: index of the negative query, which belongs to another group;
    ``masked_words``, ``unknown_words`` (Q, W) bool and ``word_labels`` (Q, W) int64;
    ``absent`` (Q,) bool: whether no sentence about the query's video is a near-duplicate of the negative query's, so
    that the video has no answer to it; None if the decoder is not trained with negatives.
    """

    spans: Tensor
    spans_mask: Tensor
    group: Tensor
    overlap: Tensor
    moment_frames: Tensor
    moment_mask: Tensor
    saliency: Tensor
    positive_frames: Tensor
    negative_frames: Tensor
    triplet_mask: Tensor
    negative_query: Tensor
    masked_words: Tensor
    unknown_words: Tensor
    word_labels: Tensor
    absent: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """A batch: queries in order, inputs of the model and, in training, targets.

    ``features``: what ``to`` puts before the endpoint channels, which ``inputs.video`` alone has until then: (V, T, D)
    float16 or float32, or the rows (V, T) int64 of a ``table`` (rows, D) that is on the device. None if the video is
    complete. ``buffer``: (bytes,) uint8 that holds all tensors one after another, if the batch is packed.
    """

    queries: tuple[Query, ...]
    inputs: Inputs
    targets: Targets | None = None
    features: Tensor | None = None
    table: Tensor | None = None
    buffer: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on ``device`` with complete videos; a packed one is moved by one copy."""
        if self.buffer is None:
            return self._moved(lambda x: x.to(device, non_blocking=True))._complete()
        return self._in(self.buffer.to(device, non_blocking=True))._complete()

    def packed(self, buffer: Callable[[int], Tensor]) -> Batch:
        """Return the same batch with its tensors one after another in one buffer.

        Args:
            buffer: returns a uint8 tensor of a number of bytes, e.g. in pinned memory, from which copies to CUDA run
                asynchronously.
        """
        packed = self._in(buffer(_start_of_next(self._tensors())))
        for here, there in zip(packed._tensors(), self._tensors(), strict=True):
            here.copy_(there)
        return packed

    def _tensors(self) -> list[Tensor]:
        found: list[Tensor] = []

        def collect(x: Tensor) -> Tensor:
            found.append(x)
            return x

        self._moved(collect)
        return found

    def _in(self, buffer: Tensor) -> Batch:
        """Return a batch with the same shapes whose tensors are parts of a buffer."""
        start = 0

        def place(x: Tensor) -> Tensor:
            nonlocal start
            part = buffer[start : start + x.numel() * x.itemsize].view(x.dtype).view(x.shape)
            start = _start_of_next([x], start)
            return part

        return replace(self._moved(place), buffer=buffer)

    def _moved(self, move: Callable[[Tensor], Tensor]) -> Batch:
        targets = None if self.targets is None else _moved(self.targets, move)
        features = None if self.features is None else move(self.features)
        return replace(self, inputs=_moved(self.inputs, move), targets=targets, features=features)

    def _complete(self) -> Batch:
        if self.features is None:
            return self
        features, endpoints = self.features, self.inputs.video
        if self.table is not None:
            features = self.table.index_select(0, features.flatten()).view(*features.shape, -1)
        channels = endpoints.shape[-1]
        video = endpoints.new_empty(*endpoints.shape[:-1], features.shape[-1] + channels)
        video[..., :-channels] = features
        video[..., -channels:] = endpoints
        return replace(self, inputs=replace(self.inputs, video=video), features=None, table=None)


@dataclass(frozen=True)
class ModelOutput:
    """Output of the model, with L decoder layers; the last layer is the prediction.

    ``logits``: (L, Q, N, 2), index 0 = foreground; ``spans``: (L, Q, N, 2), center and width in [0, 1];
    ``saliency`` (Q, T); ``text`` (Q, W', d) the words, after the reconstruction if SS-MESM is on, with ``text_mask``
    (Q, W'). In training also ``negative_saliency`` (Q, T), ``word_logits`` (Q, W, classes), ``moments`` (Q, C, d)
    the projected frames of each query's moment, and with ``Targets.absent`` the ``negative_logits`` (L, Q, N, 2).
    Values at padding have no meaning.
    """

    logits: Tensor
    spans: Tensor
    saliency: Tensor
    text: Tensor
    text_mask: Tensor
    negative_saliency: Tensor | None = None
    word_logits: Tensor | None = None
    moments: Tensor | None = None
    negative_logits: Tensor | None = None

    def float(self) -> ModelOutput:
        """Return the output in float32, in which losses are computed."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        floats = {name: x.float() for name, x in values.items() if x is not None and x.is_floating_point()}
        return replace(self, **floats)


@dataclass(frozen=True, slots=True)
class Prediction:
    """A prediction: ``windows`` (n, 3) rows [start s, end s, score] by falling score; ``saliency`` (frames,).

    ``confidence``: P(IoU of the first window >= 0.5), or None if it is unknown.
    """

    qid: int | str | None
    query: str
    vid: str
    windows: np.ndarray
    saliency: np.ndarray
    confidence: float | None = None

    def as_json(self) -> dict[str, object]:
        """Return the prediction in Moment-DETR's submission format, with ``pred_confidence`` if it is known."""
        line: dict[str, object] = {
            "qid": self.qid,
            "query": self.query,
            "vid": self.vid,
            "pred_relevant_windows": self.windows.tolist(),
            "pred_saliency_scores": self.saliency.tolist(),
        }
        return line if self.confidence is None else line | {"pred_confidence": round(self.confidence, 6)}


def _start_of_next(tensors: Sequence[Tensor], start: int = 0) -> int:
    """Return the byte after these tensors at which another one may start."""
    return start + sum(-(-x.numel() * x.itemsize // ALIGNED) * ALIGNED for x in tensors)


def _moved(value: _Moved, move: Callable[[Tensor], Tensor]) -> _Moved:
    tensors: dict[str, Any] = {f.name: getattr(value, f.name) for f in fields(value)}
    return replace(value, **{name: move(x) for name, x in tensors.items() if x is not None})
