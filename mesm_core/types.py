"""The values that travel between the parts: frozen dataclasses with their shapes and units.

Shapes: Q queries in a batch, V videos, T frames, W words, G groups, N slots, C frames of the longest moment,
M windows, d hidden size, Dv and Dt raw video and text widths. Masks are True where valid. Times are seconds
unless a name says ``span`` (center and width in [0, 1]) or ``frame`` (an inclusive index).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


CLIP_SECONDS = 2
"""Length of the clips that annotators score, in seconds."""

_Moved = TypeVar("_Moved", "Inputs", "Targets")


@dataclass(frozen=True, slots=True)
class Highlights:
    """What annotators thought of a video's clips: ``scores[i]`` are the scores (0-4) of clip ``clips[i]``."""

    clips: tuple[int, ...]
    scores: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Query:
    """A sentence about a video, with the windows in which it happens where they are known.

    ``source``: queries of one source form a group (default: the video); ``highlights``: saliency labels;
    ``repaired``: the annotated windows were inverted or outside the video.
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
        """What the query is grouped by."""
        return self.source or self.vid

    @property
    def start(self) -> float:
        """Start of the first window in seconds; 0 where there is none."""
        return self.windows[0][0] if self.windows else 0.0


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """One encoded sentence: ``words`` (w, Dt) float32."""

    words: np.ndarray


@dataclass(frozen=True, slots=True)
class Words:
    """A sentence's tokens as the masked-language model sees them; all of one length, at most ``max_words``.

    ``labels``: class of each word; ``unknown``: True where the word is outside the MLM vocabulary;
    ``weights``: 2 for nouns, verbs, adjectives and adverbs, 1 for the rest, 0 for start and end.
    """

    tokens: tuple[str, ...]
    labels: np.ndarray
    unknown: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Inputs:
    """What the model needs to answer: no truth, no draws.

    ``video`` (V, T, Dv+2) float32, ``video_mask`` (V, T) bool, ``video_index`` (Q,) int64: each query's row
    of ``video``; ``words`` (Q, W, Dt) float32, ``words_mask`` (Q, W) bool; ``frames`` (N,) int64:
    where the queries' valid frames lie in a (Q, T) layout, q·T + t by rising q and t, so that padding can be left out;
    ``context_index`` (Q,) int64 and ``context`` (K, T'), int64 rows of the flattened (V·T) frames that
    SS-MESM looks at with ``context_mask``, or None where a query's context is its own video.
    """

    video: Tensor
    video_mask: Tensor
    video_index: Tensor
    words: Tensor
    words_mask: Tensor
    frames: Tensor
    context: Tensor | None = None
    context_mask: Tensor | None = None
    context_index: Tensor | None = None

    @cached_property
    def frames_mask(self) -> Tensor:
        """The valid frames of each query's video, (Q, T) bool."""
        return self.video_mask[self.video_index]


@dataclass(frozen=True)
class Targets:
    """The truth and the random draws of a training batch; everything that ``forward`` must not draw itself.

    ``spans`` (Q, M, 2) center and width with ``spans_mask`` (Q, M); ``group`` (Q,) int64;
    ``moment_frames`` (Q, C) int64 with ``moment_mask`` (Q, C): the frames inside the moment;
    ``saliency`` (Q, T) float32 labels (0 outside); ``positive_frames``, ``negative_frames`` (Q, P) int64 with
    ``triplet_mask`` (Q,) False where no frame lies outside the moment;
    ``negative_query`` (Q,) int64: the query of another group that each query is contrasted with;
    ``masked_words``, ``unknown_words`` (Q, W) bool and ``word_labels`` (Q, W) int64.
    """

    spans: Tensor
    spans_mask: Tensor
    group: Tensor
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


@dataclass(frozen=True)
class Batch:
    """A batch: the queries in order, the model's inputs, and in training the targets."""

    queries: tuple[Query, ...]
    inputs: Inputs
    targets: Targets | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the same batch on ``device``."""
        return self._moved(lambda x: x.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """Return the same batch in memory from which CUDA copies while it computes."""
        return self._moved(lambda x: x.pin_memory())

    def _moved(self, move: Callable[[Tensor], Tensor]) -> Batch:
        targets = None if self.targets is None else _moved(self.targets, move)
        return replace(self, inputs=_moved(self.inputs, move), targets=targets)


@dataclass(frozen=True)
class ModelOutput:
    """What the model says. Lists run over the decoder's layers, the last one being the answer.

    ``logits``: (Q, N, 2) each, index 0 = foreground; ``spans``: (Q, N, 2) each, center and width in [0, 1];
    ``saliency`` (Q, T); in training also ``negative_saliency`` (Q, T) and ``word_logits`` (Q, W, classes);
    ``video`` (Q, T, d) the projected video, ``text`` (Q, W', d) the words with the reconstruction in front
    (where SS-MESM is on), ``text_mask`` (Q, W').
    Values at padding have no meaning.
    """

    logits: list[Tensor]
    spans: list[Tensor]
    saliency: Tensor
    video: Tensor
    text: Tensor
    text_mask: Tensor
    negative_saliency: Tensor | None = None
    word_logits: Tensor | None = None

    def float(self) -> ModelOutput:
        """Return the same output in float32, as losses need it."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: _float(value) for name, value in values.items()})


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer: ``windows`` (n, 3) rows [start s, end s, score] by falling score; one ``saliency`` a frame."""

    qid: int | str | None
    query: str
    vid: str
    windows: np.ndarray
    saliency: np.ndarray

    def as_json(self) -> dict[str, object]:
        """Return the field's submission line (Moment-DETR's format)."""
        return {
            "qid": self.qid,
            "query": self.query,
            "vid": self.vid,
            "pred_relevant_windows": self.windows.tolist(),
            "pred_saliency_scores": self.saliency.tolist(),
        }


def _float(value: Any) -> Any:
    if isinstance(value, list):
        return [_float(item) for item in value]
    return value if value is None or not value.is_floating_point() else value.float()


def _moved(value: _Moved, move: Callable[[Tensor], Tensor]) -> _Moved:
    tensors: dict[str, Any] = {f.name: getattr(value, f.name) for f in fields(value)}
    return replace(value, **{name: move(x) for name, x in tensors.items() if x is not None})
