"""A trained model that answers queries about videos: the library's front door, and what the command line stands on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mesm_core.build import (
    Paths,
    build_decoding,
    build_device,
    build_framing,
    build_text,
    build_text_from_state,
    build_trained,
    data_paths,
)
from mesm_core.config.load import DATA_ROOT, Layer, resolve
from mesm_core.config.schema import Config
from mesm_core.data.collate import Item, collate
from mesm_core.data.features import prepare_frames, with_endpoints
from mesm_core.errors import DataError, TextError
from mesm_core.inference.decode import decode
from mesm_core.inputs import has_surrogates, printable
from mesm_core.model.mesm import Mesm
from mesm_core.official.checkpoint import load_any_checkpoint
from mesm_core.text.encoder import TextEncoder
from mesm_core.training.checkpoint import Checkpoint
from mesm_core.types import Prediction, Query

MOST_WORDS = 500
Features = np.ndarray | Sequence[np.ndarray]
"""A video's frames (L, D), or one array of frames a feature file, in the order they are joined."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a sentence happens: ``start`` and ``end`` in seconds, ``score`` in [0, 1]."""

    start: float
    end: float
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found for a query: moments by falling score, and ``saliency`` (frames,) float32, a ranking score."""

    query: str
    moments: tuple[Moment, ...]
    saliency: np.ndarray


@dataclass(frozen=True)
class Asked:
    """A video and what is asked about it."""

    features: Features
    queries: Sequence[str]
    duration: float


class MomentRetriever:
    """Answers queries with a trained model; may be used from several threads.

    Args:
        config: the run's settings; model: trained, in evaluation mode; text: its text encoder; device: where to run.

    >>> from mesm_core.config.load import load_config
    >>> from mesm_core.build import build_model
    >>> from mesm_core.text.glove import GloveTable, GloveText
    >>> from mesm_core.text.words import LexiconTagger
    >>> small = ["model.video_dim=6", "model.text_dim=4", "model.hidden_dim=8", "model.heads=2", "model.slots=3"]
    >>> config = load_config("tacos", overrides=small)
    >>> table = GloveTable(("he", "cuts"), np.ones((4, 4), np.float32))
    >>> text = GloveText(table=table, label_words=["he"], tagger=LexiconTagger(), max_words=16)
    >>> model = build_model(config.model, classes=2, max_words=16).eval()
    >>> retriever = MomentRetriever(config=config, model=model, text=text, device=torch.device("cpu"))
    >>> answer, = retriever.locate(np.random.rand(20, 6), ["He cuts bread."], duration=31.0)
    >>> len(answer.moments), answer.saliency.shape, 0 <= answer.moments[0].start <= 31.0
    (3, (20,), True)
    """

    def __init__(self, *, config: Config, model: Mesm, text: TextEncoder, device: torch.device) -> None:
        self.config = config
        self.model = model.to(device).eval()
        self.text = text
        self.device = device

    @classmethod
    def load(cls, path: Path | str, *, device: str = "auto") -> MomentRetriever:
        """Return the retriever of a checkpoint that ``mesm train`` wrote.

        Raises:
            CheckpointError: the file is not a checkpoint; DeviceError: the device is not there.
        """
        return cls.from_checkpoint(load_any_checkpoint(Path(path)), device=device)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        config: Config | None = None,
        device: str = "auto",
        text: Path | None = None,
        paths: Paths | None = None,
    ) -> MomentRetriever:
        """Return the retriever of a loaded checkpoint.

        Args:
            config: settings to use instead of its own; text: where CLIP's weights lie, if they were moved.
            paths: where the text encoder's files lie, for a published checkpoint, which does not hold it.

        Raises:
            TextError: the text encoder's files are missing or do not fit.
        """
        config = config or resolve([Layer("checkpoint", checkpoint.config)])
        where = build_device(device)
        if checkpoint.text:
            encoder = build_text_from_state(config, checkpoint.text, device=where, path=text)
        else:
            encoder = build_text(config, paths or data_paths(config, DATA_ROOT), device=where)
        return cls(config=config, model=build_trained(config, checkpoint.model, encoder), text=encoder, device=where)

    def locate(
        self, features: Features, queries: Sequence[str], *, duration: float, independent: bool = False
    ) -> list[Answer]:
        """Return one answer a query, in order; the video is encoded once for all of them.

        Args:
            features: raw frames, as wide as the model's features; they are scaled and shortened as in training.
            queries: sentences; together they form one group unless ``independent``.
            duration: the video's length in seconds; no moment ends after it.

        Raises:
            TextError: a query is empty or as long as a book, or there is none;
            FeatureError: the features do not fit the model;
            DataError: the duration is not positive.
        """
        if independent:
            return [self.locate(features, [query], duration=duration)[0] for query in queries]
        (answers,) = self.locate_many([Asked(features, queries, duration)])
        return answers

    def locate_many(self, asked: Sequence[Asked]) -> list[list[Answer]]:
        """Return the answers about many videos, a list a video, in order; batched as in evaluation.

        Raises:
            The same as ``locate``.
        """
        size = self.config.eval.batch_size
        found: list[list[Answer]] = []
        for first in range(0, len(asked), size):
            found += self._locate_batch(asked[first : first + size])
        return found

    def _locate_batch(self, asked: Sequence[Asked]) -> list[list[Answer]]:
        videos: dict[str, np.ndarray] = {}
        groups: list[list[Item]] = []
        for number, video in enumerate(asked):
            _refuse_what_cannot_be_asked(video)
            videos[str(number)] = self._prepare(video.features)
            self.text.prepare(video.queries)
            groups.append(
                [Item(Query(None, str(number), q, video.duration), self.text.features(q)) for q in video.queries]
            )
        with torch.inference_mode():
            batch = collate(groups, videos, framing=build_framing(self.config), rng=None).to(self.device)
            predictions = iter(decode(self.model(batch.inputs), batch, build_decoding(self.config)))
        return [[_answer(next(predictions), video.duration) for _ in video.queries] for video in asked]

    def _prepare(self, features: Features) -> np.ndarray:
        parts = [features] if isinstance(features, np.ndarray) else list(features)
        frames = prepare_frames(
            parts,
            dim=self.config.model.video_dim,
            max_frames=self.config.dataset.max_frames,
            shorten=self.config.dataset.shorten,
            where="The video's features",
        )
        return with_endpoints(frames.astype(self.config.data.keep_as))


def _refuse_what_cannot_be_asked(asked: Asked) -> None:
    if not asked.queries:
        raise TextError("No query was given.", hint='Put one in quotes: "a person opens the door".')
    for query in asked.queries:
        if has_surrogates(query):
            raise TextError(f"The query '{printable(query[:40])}' is not UTF-8 text.")
        words = len(query.split())
        if words > MOST_WORDS:
            raise TextError(
                f"The query '{query[:40]}…' has {words:,} words; models read the first few dozen at most.",
                hint="Describe one moment in a sentence.",
            )
    if not asked.duration > 0 or not np.isfinite(asked.duration):
        raise DataError(f"The duration is {asked.duration:g} seconds; it must be positive.")


def _answer(prediction: Prediction, duration: float) -> Answer:
    moments = (
        Moment(min(start, duration), min(end, duration), score) for start, end, score in prediction.windows.tolist()
    )
    return Answer(prediction.query, tuple(moments), prediction.saliency)
