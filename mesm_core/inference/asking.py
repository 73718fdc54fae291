"""Questions about videos, from files or pipes, and a checkpoint's answers as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from mesm_core.build import build_features
from mesm_core.config.load import Layer, resolve
from mesm_core.data.annotations import is_number, make_reader, query_id, video_id
from mesm_core.data.features import FeatureStore
from mesm_core.errors import DataError
from mesm_core.inference.predictor import Answer, Asked, Moment, MomentRetriever
from mesm_core.inference.scoring import checkpoint_paths
from mesm_core.inputs import has_surrogates, parse_json, shown
from mesm_core.metrics.nms import temporal_nms
from mesm_core.official.checkpoint import load_any_checkpoint
from mesm_core.types import Prediction

AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Question:
    """A query about a video; ``duration`` in seconds, or None to look it up."""

    qid: int | str
    vid: str
    query: str
    duration: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A question with its answer and the duration that was used."""

    question: Question
    answer: Answer
    duration: float

    def prediction(self) -> Prediction:
        """Return the reply as a line of a submission file."""
        windows = np.array([[m.start, m.end, m.score] for m in self.answer.moments]).reshape(-1, 3)
        return Prediction(self.question.qid, self.question.query, self.question.vid, windows, self.answer.saliency)


def read_questions(
    lines: Iterable[str], *, source: str, video: str | None, duration: float | None
) -> Iterator[Question]:
    """Yield the question of each line: a sentence, or a JSON object with ``query``, and ``vid``, ``qid``, ``duration``.

    Args:
        source: where the lines come from, for messages; video, duration: of lines that do not have their own.

    Raises:
        DataError: a line is malformed or has no video; the message names it.
    """
    found = False
    for number, line in _numbered(lines, source):
        text = line.strip()
        if not text:
            continue
        found = True
        where = f"{source}, line {number}"
        if has_surrogates(text):
            raise DataError(f"{where} is not UTF-8 text.")
        record: object = parse_json(text, where) if text.startswith("{") else {"query": text}
        if not isinstance(record, dict) or not isinstance(record.get("query"), str):
            raise DataError(f"{where}: a question has a 'query', a sentence.")
        vid = record.get("vid", video)
        if vid is None:
            raise DataError(f"{where}: the line has no 'vid'.", hint="Give --video ID, or JSON lines that have it.")
        seconds = record.get("duration", duration)
        if seconds is not None and not is_number(seconds):
            raise DataError(f"{where}: duration {shown(seconds)} is not a number of seconds.")
        qid = query_id(record.get("qid", number), where)
        yield Question(qid, video_id(vid, where), record["query"], seconds)
    if not found:
        raise DataError(f"{source} holds no QUERY.", hint="Give a sentence in quotes, or --queries FILE.")


def _numbered(lines: Iterable[str], source: str) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers, without a byte-order mark."""
    number = 0
    try:
        for number, line in enumerate(lines, start=1):
            yield number, line.removeprefix("\ufeff") if number == 1 else line
    except UnicodeDecodeError as error:
        raise DataError(f"{source}, line {number + 1} or after is not UTF-8 text.") from error


class Asker:
    """A checkpoint with the features of the videos it is asked about."""

    def __init__(self, retriever: MomentRetriever, features: FeatureStore, annotations: Path) -> None:
        self._retriever = retriever
        self._features = features
        self._annotations = annotations
        self._annotated: dict[str, float] | None = None

    def answer(self, questions: Iterable[Question], *, nms: float = -1, independent: bool = False) -> Iterator[Reply]:
        """Yield a reply a question, in order; questions are read as they are needed.

        Args:
            nms: threshold of temporal NMS; -1 for none.
            independent: do not encode the questions about a video together.

        Raises:
            MesmError: a video has no features or no known duration, or a query is unusable.
        """
        stream = iter(questions)
        while part := list(islice(stream, AT_ONCE)):
            groups = [[question] for question in part] if independent else _by_video(part)
            asked = [self._asked(group) for group in groups]
            answers = self._retriever.locate_many(asked)
            found = {
                id(question): Reply(question, _suppressed(answer, nms), about.duration)
                for group, about, replies in zip(groups, asked, answers, strict=True)
                for question, answer in zip(group, replies, strict=True)
            }
            for question in part:
                yield found[id(question)]

    def _asked(self, group: Sequence[Question]) -> Asked:
        vid = group[0].vid
        self._features.require([vid], skippable=False)
        given = next((question.duration for question in group if question.duration is not None), None)
        duration = given if given is not None else self._features.duration(vid)
        if duration is None:
            duration = self._annotated_duration(vid)
        return Asked(self._features.raw(vid), [question.query for question in group], duration)

    def _annotated_duration(self, vid: str) -> float:
        if self._annotated is None:
            self._annotated = annotated_durations(self._retriever, self._annotations)
        if vid not in self._annotated:
            raise DataError(
                f"The duration of video '{vid}' is not known: the feature file has no 'duration' attribute, and the "
                f"annotations in {self._annotations} do not have the video.",
                hint="Give --duration SECONDS, or convert the features with `mesm prepare npy2hdf5 --fps RATE`.",
            )
        return self._annotated[vid]


def load_asker(
    path: Path,
    *,
    root: Path | None = None,
    annotations: Path | None = None,
    features: Sequence[Path] = (),
    text: Path | None = None,
    device: str = "auto",
) -> Asker:
    """Return a checkpoint, ready to be asked about the videos of its feature files.

    Args:
        root: data folder; annotations, features, text: given paths, over the data folder's.

    Raises:
        MesmError: a file is missing or does not fit.
    """
    checkpoint = load_any_checkpoint(path)
    config = resolve([Layer(str(path), checkpoint.config)])
    paths = checkpoint_paths(checkpoint, config, root, annotations=annotations, features=features, text=text)
    retriever = MomentRetriever.from_checkpoint(checkpoint, config=config, device=device, text=text, paths=paths)
    return Asker(retriever, build_features(config, paths), paths.annotations)


def annotated_durations(retriever: MomentRetriever, folder: Path) -> dict[str, float]:
    """Return the durations in seconds of the videos that the dataset's readable splits have."""
    dataset = retriever.config.dataset
    reader = make_reader(dataset.name)
    durations: dict[str, float] = {}
    for split in reader.splits or (dataset.train, *dataset.eval):
        try:
            queries = reader.read(folder, split).queries
        except DataError:
            continue  # a split that is not there cannot know a video
        durations |= {query.vid: query.duration for query in queries}
    return durations


def _by_video(questions: Sequence[Question]) -> list[list[Question]]:
    groups: dict[tuple[str, float | None], list[Question]] = {}
    for question in questions:
        groups.setdefault((question.vid, question.duration), []).append(question)
    return list(groups.values())


def _suppressed(answer: Answer, nms: float) -> Answer:
    if nms < 0:
        return answer
    windows = np.array([[m.start, m.end, m.score] for m in answer.moments]).reshape(-1, 3)
    kept = temporal_nms(windows, threshold=nms)
    return replace(answer, moments=tuple(Moment(*row) for row in kept.tolist()))
