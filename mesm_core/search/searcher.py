"""Search in two stages: vectors find candidate spans in all videos, and a moment model finds the moments in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial

import numpy as np

from mesm_core.arrays import normalise
from mesm_core.confidence.calibration import check_confidence, not_calibrated
from mesm_core.errors import ConfigError, DataError, FeatureError, count
from mesm_core.inference.answers import Answer, VideoQueries
from mesm_core.inference.locate import refuse_queries
from mesm_core.inference.retriever import Retriever
from mesm_core.inference.zero_shot import find_moments
from mesm_core.inference.zero_shot_retriever import Sentences, ZeroShotRetriever
from mesm_core.metrics.nms import PEOPLE_NMS
from mesm_core.search.index import Index
from mesm_core.search.ranking import distinct, interleaved
from mesm_core.search.results import Example, Found, Results
from mesm_core.search.selection import select_videos
from mesm_core.search.spans import Part, Span, joined_parts, merge_hits, part_around

TOP = 10
SEGMENTS_A_RESULT = 20
FEWEST_SEGMENTS = 200
MOST_SEGMENTS = 10_000
"""Segments from which no more are asked for, if they are those of few videos."""
FEWEST_CANDIDATES = 20
"""Fewest spans that the moment model sees for a query."""
MOMENTS_A_PART = 3
ZERO_SHOT_LONGEST = 600.0
"""Seconds up to which zero-shot sees a whole video, which it needs for comparison."""
ZERO_SHOT_PART = 150.0
MOST_RESULTS = 1_000
ORDERS = ("confidence", "similarity")
KEPT_VIDEOS = 64
"""Videos whose features are kept in memory between queries."""


@dataclass(frozen=True)
class MomentModel:
    """The model of the second stage.

    ``backbones``: whose features in the index it sees, in order; ``longest``: seconds of video up to which it sees a
    whole video; ``part``: seconds of the part that it sees of a longer one; ``features``: returns the features of a
    whole video by its name, one array per feature file, instead of those in the index.
    """

    retriever: Retriever
    backbones: tuple[str, ...]
    longest: float
    part: float
    features: Callable[[str], list[np.ndarray]] | None = None


FindMoments = Callable[[Sequence[Part]], tuple[list[Found], tuple[str, ...]]]
"""Returns the moments in parts of videos, best first, and warnings."""


class Searcher:
    """Finds the moments that sentences describe in the videos of an index.

    Args:
        index: open for reading; sentences: encodes queries into the space of its vectors; None if there are only
            examples.
        model: of the second stage, None for zero-shot.
    """

    def __init__(self, index: Index, sentences: Sentences | None, model: MomentModel | None = None) -> None:
        self.index = index
        self._sentences = sentences
        self._model = model
        self._rows = lru_cache(KEPT_VIDEOS)(index.features)

    @property
    def calibrated(self) -> bool:
        """Whether moments have a confidence."""
        return self._model is not None and self._model.retriever.calibrated

    @property
    def trained(self) -> bool:
        """Whether the second stage has a trained model."""
        return self._model is not None

    def choose(self, *, videos: str | None = None, since: str | None = None) -> set[str] | None:
        """Return the ids of the videos to search, or None for all.

        Args:
            videos: name, path, folder or pattern, as for ``select_videos``; since: date (and time) in ISO 8601; files
                that were changed before it are not searched.

        Raises:
            ConfigError: the date is invalid; DataError: no video fits.
        """
        if videos is None and since is None:
            return None
        named = list(self.index.videos.values()) if videos is None else select_videos(self.index.videos, [videos])
        moment = None if since is None else _timestamp(since)
        chosen = {video.id for video in named if moment is None or video.mtime / 1e9 >= moment}
        if not chosen:
            raise DataError(
                f"Of {count(len(named), 'video')}, none was changed since {since}.",
                hint="The date is that of the file when it was added to the index.",
            )
        return chosen

    def search(
        self,
        queries: Sequence[str],
        *,
        top: int = TOP,
        videos: set[str] | None = None,
        stage: int = 2,
        order: str = "confidence",
        min_confidence: float | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Results]:
        """Return the results of each query, in order.

        Args:
            top: number of moments per query; videos: ids of the videos to search, None for all.
            stage: 1 returns the candidate spans, 2 the moments that the model finds in them.
            order: of moments in stage two: by their ``confidence`` if the model is calibrated; or by the ``similarity``
                of their spans, the best moment of each first.
            min_confidence: drops moments of less confidence.
            progress: called with 1 after each query.

        Raises:
            TextError: a query is empty or too long; ConfigError: ``order`` is unknown, ``min_confidence`` is not in
                [0, 1], or the model has no calibration; FeatureError: kept features are damaged; OutputError: the
                engine cannot be reached.
        """
        refuse_queries(queries)
        self._check(top, stage, min_confidence)
        if order not in ORDERS:
            raise ConfigError(f"Results are ordered by {' or '.join(ORDERS)}, not by '{order}'.")
        results = []
        for query, vector in zip(queries, self._encoder.embed(queries), strict=True):
            spans = self._spans(vector, top, videos)
            if stage == 1:
                results.append(Results(query, tuple(self._as_found(span) for span in spans[:top])))
            else:
                answer = partial(self._moments, query, vector, order=order)
                found, warnings = self._seen(spans, max(2 * top, FEWEST_CANDIDATES), top, self._reach, answer)
                results.append(_confident(query, found[:top], warnings, min_confidence))
            if progress is not None:
                progress(1)
        return results

    def reopened(self) -> Searcher:
        """Return a searcher of the index as it is now, with the same model.

        Raises:
            FeatureError: the index was built again with other backbones or weights; also the errors of ``Index.open``.
        """
        found = Index.open(self.index.path)
        if found.manifest.networks != self.index.manifest.networks:
            found.close()
            networks = " and ".join(map(str, found.manifest.networks))
            raise FeatureError(f"{found.path} was built again, of features of {networks}.", hint="Load it again.")
        return Searcher(found, self._sentences, self._model)

    def answer(self, query: str, video: str) -> Answer:
        """Return the answer of the model of stage two about a whole video, with its saliency.

        Args:
            video: id.

        Raises:
            The same as ``search``.
        """
        refuse_queries([query])
        duration = self.index.videos[video].duration
        if self._model is None:
            rows = self._rows(video)[0]
            (found,) = ZeroShotRetriever(self._encoder).locate(rows, [query], duration=duration)
            return found
        part = Part(video, 0, len(self._rows(video)[0]), 0.0, duration, 0.0)
        asked = VideoQueries(self._features(part, self._model), [query], duration)
        ((found,),) = self._model.retriever.locate_many([asked], nms=PEOPLE_NMS)
        return found

    def search_in(self, query: str, video: str, *, top: int = TOP) -> Results:
        """Return the moments that the model of stage two finds in a whole video.

        Args:
            video: id.

        Raises:
            The same as ``search``.
        """
        refuse_queries([query])
        self._check(top, 2, None)
        duration = self.index.videos[video].duration
        (vector,) = self._encoder.embed([query])
        parts = self._parts([Span(video, 0.0, duration, 0.0)], duration, duration)
        found, warnings = self._moments(query, vector, parts, most=top)
        return Results(query, tuple(found[:top]), warnings=warnings)

    def search_like(
        self, example: Example, *, top: int = TOP, videos: set[str] | None = None, stage: int = 2
    ) -> Results:
        """Return the moments that look like a moment of the index, without that moment itself.

        The second stage is zero-shot, since trained models need a sentence.

        Raises:
            DataError: the example lies outside of its video; FeatureError: kept features are damaged.
        """
        self._check(top, stage, None)
        video = self.index.videos[example.video]
        name = f"{video.name}@{example.start:g}-{example.end:g}"
        if not 0 <= example.start < example.end or example.start >= video.duration:
            raise DataError(f"{name} is not a part of the video, which lasts {video.duration:.1f} s.")
        rows, clip_len = self._rows(video.id)
        first = min(int(example.start / clip_len), len(rows) - 1)
        chosen = rows[first : max(int(np.ceil(example.end / clip_len)), first + 1)]
        vector = normalise(chosen).mean(axis=0)
        spans = [span for span in self._spans(vector, top + 1, videos) if not _overlaps(span, example)]
        if stage == 1:
            return Results(name, tuple(self._as_found(span) for span in spans[:top]))

        def answer(parts: Sequence[Part]) -> tuple[list[Found], tuple[str, ...]]:
            moments = interleaved([self._like(part, normalise(vector)) for part in parts])
            return distinct([one for one in moments if not _overlaps(one, example)]), ()

        reach = (ZERO_SHOT_LONGEST, ZERO_SHOT_PART)
        found, _ = self._seen(spans, max(top, FEWEST_CANDIDATES), top, reach, answer)
        return Results(name, tuple(found[:top]))

    def find_example(self, text: str) -> Example:
        """Return the moment that ``VIDEO@START-END`` names; the video by id, name or path.

        Raises:
            ConfigError: the text has another form; DataError: no video of the index, or several, have that name.
        """
        named, _, times = text.rpartition("@")
        start, _, end = times.partition("-")
        try:
            seconds = float(start), float(end)
        except ValueError:
            raise ConfigError(
                f"'{text}' does not name a moment.", hint="Write VIDEO@START-END: door.mp4@12.5-18"
            ) from None
        fitting = select_videos(self.index.videos, [named])
        if len(fitting) > 1:
            raise DataError(
                f"{len(fitting)} videos of {self.index.path} are called '{named}'.",
                hint="Give the id or the path of one.",
            )
        return Example(fitting[0].id, *seconds)

    def _check(self, top: int, stage: int, min_confidence: float | None) -> None:
        if not 1 <= top <= MOST_RESULTS:
            raise ConfigError(f"The number of moments is {top}; it must be from 1 to {MOST_RESULTS}.")
        if stage not in (1, 2):
            raise ConfigError(f"There are stages 1 and 2, not {stage}.")
        if min_confidence is not None:
            check_confidence(min_confidence)
            if stage == 1 or not self.calibrated:
                raise not_calibrated()

    def _spans(self, vector: np.ndarray, top: int, videos: set[str] | None) -> list[Span]:
        """Return spans, best first. More segments are asked for if the best ones are merged to few spans."""
        segments = max(SEGMENTS_A_RESULT * top, FEWEST_SEGMENTS)
        while True:
            hits = self.index.query(vector, segments, videos)
            spans = merge_hits(hits)
            enough = len(spans) >= max(top, FEWEST_CANDIDATES)
            if enough or len(hits) < segments or segments >= MOST_SEGMENTS:
                return spans
            segments = min(8 * segments, MOST_SEGMENTS)

    def _seen(
        self, spans: Sequence[Span], number: int, top: int, reach: tuple[float, float], answer: FindMoments
    ) -> tuple[list[Found], tuple[str, ...]]:
        """Return what ``answer`` finds in the parts of the first ``number`` spans, best first.

        Spans of one video may share a part, so that these parts may have fewer than ``top`` moments. Then the parts of
        twice as many spans are taken.
        """
        found: tuple[list[Found], tuple[str, ...]] = ([], ())
        parts: list[Part] = []
        while True:
            before, parts = len(parts), self._parts(spans[:number], *reach)
            if len(parts) > before:
                found = answer(parts)
            if len(found[0]) >= top or number >= len(spans):
                return found
            number *= 2

    def _as_found(self, span: Span) -> Found:
        return Found(self.index.videos[span.video], span.start, span.end, span.similarity)

    def _parts(self, spans: Sequence[Span], longest: float, least: float) -> list[Part]:
        rows = {span.video: len(self._rows(span.video)[0]) for span in spans}
        videos = self.index.videos
        return joined_parts(
            part_around(span, videos[span.video], rows[span.video], least=least, longest=longest) for span in spans
        )

    def _moments(
        self,
        query: str,
        vector: np.ndarray,
        parts: Sequence[Part],
        *,
        most: int = MOMENTS_A_PART,
        order: str = "confidence",
    ) -> tuple[list[Found], tuple[str, ...]]:
        """Return the moments in parts of videos, best first, and the model's warnings.

        Args:
            vector: of the query; most: moments of a part; order: as for ``search``.
        """
        model = self._model
        if model is None:
            return distinct(interleaved([self._like(part, vector, most) for part in parts])), ()
        asked = [VideoQueries(self._features(part, model), [query], part.seconds) for part in parts]
        answers = [answer for (answer,) in model.retriever.locate_many(asked, nms=PEOPLE_NMS)]
        found = [self._from_answer(part, answer, most) for part, answer in zip(parts, answers, strict=True)]
        if self.calibrated and order == "confidence":
            ranked = sorted((one for moments in found for one in moments), key=lambda one: -(one.confidence or 0.0))
        else:
            ranked = interleaved(found)
        unknown = [warning for answer in answers[:1] if answer.all_words_unknown for warning in answer.warnings]
        return distinct(ranked), tuple(unknown)

    @property
    def _encoder(self) -> Sentences:
        assert self._sentences is not None, "sentences need an encoder"
        return self._sentences

    @property
    def _reach(self) -> tuple[float, float]:
        """Seconds up to which the model sees a whole video, and of the part that it sees of a longer one."""
        model = self._model
        return (ZERO_SHOT_LONGEST, ZERO_SHOT_PART) if model is None else (model.longest, model.part)

    def _features(self, part: Part, model: MomentModel) -> list[np.ndarray]:
        if model.features is not None:
            return model.features(self.index.videos[part.video].name)
        return [self._rows(part.video, name)[0][part.first : part.after] for name in model.backbones]

    def _from_answer(self, part: Part, answer: Answer, most: int) -> list[Found]:
        video = self.index.videos[part.video]
        return [
            Found(
                video,
                part.start + moment.start,
                min(part.start + moment.end, video.duration),
                part.similarity,
                moment.score,
                moment.confidence,
            )
            for moment in answer.moments[:most]
        ]

    def _like(self, part: Part, vector: np.ndarray, most: int = MOMENTS_A_PART) -> list[Found]:
        """Return the moments of a part that are similar to a vector of length 1, by zero-shot."""
        rows = self._rows(part.video)[0][part.first : part.after]
        (windows,), _ = find_moments(normalise(rows), vector[None], part.seconds)
        video = self.index.videos[part.video]
        return [
            Found(video, part.start + start, min(part.start + end, video.duration), part.similarity, score)
            for start, end, score in windows[:most].tolist()
        ]


def _confident(query: str, found: Sequence[Found], warnings: tuple[str, ...], least: float | None) -> Results:
    if least is None:
        return Results(query, tuple(found), warnings=warnings)
    kept = tuple(one for one in found if (one.confidence or 0.0) >= least)
    best = None if kept else max(found, key=lambda one: one.confidence or 0.0, default=None)
    return Results(query, kept, best, warnings)


def _overlaps(one: Span | Found, example: Example) -> bool:
    video = one.video if isinstance(one, Span) else one.video.id
    return video == example.video and one.start < example.end and example.start < one.end


def _timestamp(since: str) -> float:
    try:
        return datetime.fromisoformat(since).timestamp()
    except (ValueError, OverflowError):
        raise ConfigError(
            f"'{since}' is not a date.",
            hint="Write it as 2026-05-01, or with a time: 2026-05-01T18:00.",
        ) from None
