"""MomentRetriever, a trained model that answers queries about videos: the main entry point of the library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from mesm_core.build import (
    Paths,
    build_decoding,
    build_device,
    build_framing,
    build_shortening,
    build_text_from_state,
    build_text_to_ask,
    build_trained,
    data_paths,
)
from mesm_core.checkpoint import Checkpoint
from mesm_core.confidence.calibration import Calibration, Confidence
from mesm_core.config.load import DATA_ROOT, Layer, resolve
from mesm_core.config.schema import Config
from mesm_core.data.collate import Item, collate
from mesm_core.data.features import prepare_frames, with_endpoints
from mesm_core.decode import decode
from mesm_core.errors import listing
from mesm_core.inference.answers import (
    Answer,
    Features,
    VideoQueries,
    locate_one,
    parts_of,
    refuse_invalid_queries,
)
from mesm_core.inference.changes import changed_config
from mesm_core.inference.confident import confidence_of, known_share, stored_calibration
from mesm_core.inference.windows import (
    AUTO,
    Lengths,
    Piece,
    Window,
    bounded,
    check_window,
    cut_video,
    join_predictions,
    training_lengths,
    window_warnings,
)
from mesm_core.metrics.nms import PEOPLE_NMS, check_nms
from mesm_core.model.mesm import Mesm
from mesm_core.official.checkpoint import load_any_checkpoint
from mesm_core.text.encoder import TextEncoder
from mesm_core.types import Prediction, Query, TextFeatures

MOST_PAIRS = 64
"""The most (query, window) pairs in a batch, which bounds memory; the queries of one video are never divided."""


class MomentRetriever:
    """Answers queries with a trained model; thread-safe.

    Args:
        config: the run's settings; model: the trained model; text: its text encoder; device: where to run.
        lengths: durations of the training videos; default: those of a checkpoint without statistics.
        calibration: from which answers get their confidence; without it they have none.

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
    >>> answer, = retriever.locate(np.random.rand(20, 6), ["He cuts bread."], duration=31.0, nms=-1)
    >>> len(answer.moments), answer.saliency.shape, 0 <= answer.moments[0].start <= 31.0
    (3, (20,), True)
    """

    def __init__(
        self,
        *,
        config: Config,
        model: Mesm,
        text: TextEncoder,
        device: torch.device,
        lengths: Lengths | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.config = config
        self.model = model.to(device).eval()
        self.text = text
        self.device = device
        self.lengths = lengths or training_lengths({}, config)
        self.calibration = calibration

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        device: str = "auto",
        config_file: Path | str | None = None,
        overrides: Sequence[str] = (),
    ) -> MomentRetriever:
        """Return the retriever of a checkpoint that ``mesm train`` wrote.

        Args:
            config_file, overrides: settings to change, from a file and as ``section.key=value``; see ``CHANGEABLE`` in
                ``mesm_core.inference.changes``.

        Raises:
            CheckpointError: the file is not a checkpoint; DeviceError: the device is not available;
            ConfigError: a setting may not be changed.
        """
        checkpoint = load_any_checkpoint(Path(path))
        file = None if config_file is None else Path(config_file)
        config = changed_config(checkpoint.config, source=str(path), file=file, overrides=overrides)
        return cls.from_checkpoint(checkpoint, config=config, device=device)

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
            config: settings to use instead of the checkpoint's; text: path of CLIP's weights, if they were moved.
            paths: paths of the text encoder's files, for a published checkpoint, which does not contain them.

        Raises:
            TextError: the text encoder's files are missing or do not fit; CheckpointError: the calibration is damaged
                or belongs to another model.
        """
        trained = resolve([Layer("checkpoint", checkpoint.config)])
        config = config or trained
        where = build_device(device)
        if checkpoint.text:
            encoder = build_text_from_state(config, checkpoint.text, device=where, path=text)
        else:
            encoder = build_text_to_ask(config, paths or data_paths(config, DATA_ROOT), device=where)
        model = build_trained(config, checkpoint.model, encoder)
        lengths = training_lengths(checkpoint.data_statistics, trained)
        calibration = stored_calibration(checkpoint)
        return cls(config=config, model=model, text=encoder, device=where, lengths=lengths, calibration=calibration)

    @property
    def calibrated(self) -> bool:
        """Whether answers have a confidence."""
        return self.calibration is not None

    def locate(
        self,
        features: Features,
        queries: Sequence[str],
        *,
        duration: float,
        independent: bool = False,
        nms: float = PEOPLE_NMS,
        window: Window = AUTO,
    ) -> list[Answer]:
        """Return one answer per query, in order; the video is encoded once for all queries.

        Args:
            features: raw (L, D) frames of the model's feature width; they are scaled and shortened as in training.
            queries: sentences; they form one group unless ``independent``.
            duration: the video's length in seconds; no moment ends after it.
            nms: IoU threshold of temporal NMS; -1 keeps one moment per slot of the model.
            window: ``auto`` divides a video longer than all training videos into overlapping windows of their median
                length, so that no frames are averaged or dropped. A number of seconds sets the length of the windows,
                for shorter videos, too. ``off`` shortens the video to ``dataset.max_frames`` frames, as in training.
                With windows, NMS with a threshold of 0.7 keeps at most 100 moments, and each score is weighted by
                the relevance of its window (``windows.relevance``).

        Raises:
            TextError: a query is empty or has more than 500 words, or there is none;
            FeatureError: the features do not fit the model;
            DataError: the duration is not positive;
            ConfigError: ``nms`` is neither in (0, 1] nor -1, or ``window`` is invalid.
        """
        asked = VideoQueries(features, queries, duration)
        return locate_one(self.locate_many, asked, independent=independent, nms=nms, window=window)

    def locate_many(
        self, asked: Sequence[VideoQueries], *, nms: float = PEOPLE_NMS, window: Window = AUTO
    ) -> list[list[Answer]]:
        """Return one list of answers per video, in order; batched as in evaluation.

        Args:
            nms, window: as for ``locate``.

        Raises:
            The same as ``locate``.
        """
        check_nms(nms)
        window = check_window(window)
        for video in asked:
            refuse_invalid_queries(video)
        self.text.prepare(query for video in asked for query in video.queries)
        texts = {query: self.text.features(query) for video in asked for query in video.queries}
        cuts = [self._cut(video, window) for video in asked]
        pieces = [(video, piece) for video, cut in zip(asked, cuts, strict=True) for piece in cut]
        found: list[list[Prediction]] = []
        for part in bounded(
            [len(video.queries) for video, _ in pieces], most=self.config.eval.batch_size, total=MOST_PAIRS
        ):
            found += self._predict(pieces[part], texts)
        answers = iter(found)
        return [
            [
                self._answer(parts, video, cut, window).suppressed(nms)
                for parts in zip(*[next(answers) for _ in cut], strict=True)
            ]
            for video, cut in zip(asked, cuts, strict=True)
        ]

    def _cut(self, video: VideoQueries, window: Window) -> list[Piece]:
        return cut_video(
            parts_of(video.features),
            window=window,
            duration=video.duration,
            lengths=self.lengths,
            max_frames=self.config.dataset.max_frames,
        )

    def _predict(
        self, pieces: Sequence[tuple[VideoQueries, Piece]], texts: Mapping[str, TextFeatures]
    ) -> list[list[Prediction]]:
        """Return one prediction per query for each piece of a video, in seconds of the video."""
        videos: dict[str, np.ndarray] = {}
        groups: list[list[Item]] = []
        seen: list[float] = []
        starts: list[float] = []
        shortening = build_shortening(self.config)
        for number, (video, piece) in enumerate(pieces):
            videos[str(number)] = self._prepare(piece)
            seen += [shortening.seen(piece.stop - piece.first, piece.seconds)] * len(video.queries)
            starts += [piece.start] * len(video.queries)
            groups.append([Item(Query(None, str(number), q, video.duration), texts[q]) for q in video.queries])
        with torch.inference_mode():
            batch = collate(groups, videos, framing=build_framing(self.config), rng=None)
            decoding = build_decoding(self.config, whole=True)
            output = self.model(batch.to(self.device).inputs)
            found = iter(decode(output, batch, decoding, seen=seen, starts=starts))
        return [[next(found) for _ in video.queries] for video, _ in pieces]

    def _answer(self, parts: Sequence[Prediction], video: VideoQueries, cut: Sequence[Piece], window: Window) -> Answer:
        known = self.text.known_words(parts[0].query)
        prediction, confidence = join_predictions(parts, cut, self._confidence(parts, cut))
        unknown = tuple(word for word, is_known in known.items() if not is_known)
        all_unknown = bool(known) and len(unknown) == len(known)
        shortening = build_shortening(self.config)
        if len(cut) > 1:
            warnings = window_warnings(cut, window, max_frames=self.config.dataset.max_frames)
        else:
            warnings = shortening.warnings(video.frames, video.duration)
        if all_unknown:
            warnings += (
                f"the model knows no word of the query '{prediction.query}' ({listing(unknown)}), "
                "so the answer is meaningless",
            )
        return Answer(
            query=prediction.query,
            windows=prediction.windows,
            saliency=prediction.saliency,
            seen=video.duration if len(cut) > 1 else shortening.seen(video.frames, video.duration),
            unknown_words=unknown,
            all_words_unknown=all_unknown,
            warnings=warnings,
            window=cut[0].seconds if len(cut) > 1 else None,
            confidence=None if confidence is None else confidence.answer,
            confidences=None if confidence is None else confidence.moments,
        )

    def _confidence(self, parts: Sequence[Prediction], cut: Sequence[Piece]) -> list[Confidence] | None:
        """Return the confidence of the prediction about each piece of a video, or None without a calibration."""
        if self.calibration is None:
            return None
        known = known_share(self.text, parts[0].query)
        shortening = build_shortening(self.config)
        return [
            confidence_of(
                self.calibration,
                prediction,
                start=piece.start,
                seconds=shortening.seen(piece.stop - piece.first, piece.seconds),
                known=known,
            )
            for prediction, piece in zip(parts, cut, strict=True)
        ]

    def _prepare(self, piece: Piece) -> np.ndarray:
        frames = prepare_frames(
            piece.parts,
            dim=self.config.model.video_dim,
            max_frames=self.config.dataset.max_frames,
            shorten=self.config.dataset.shorten,
            where="The video's features",
            first=piece.first,
        )
        return with_endpoints(frames.astype(self.config.data.keep_as))
