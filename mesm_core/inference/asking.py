"""Answers a stream of questions with a retriever and the features of the videos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from mesm_core.build import build_features, data_files
from mesm_core.confidence.calibration import check_confidence, not_calibrated
from mesm_core.config.load import load_config
from mesm_core.config.schema import Config, DatasetConfig
from mesm_core.data.kinds import is_array_file, refuse_pictures
from mesm_core.data.one_video import OneVideo
from mesm_core.data.readers import make_reader
from mesm_core.errors import DataError
from mesm_core.inference.answers import Answer, VideoQueries
from mesm_core.inference.changes import changed_config
from mesm_core.inference.predictor import MomentRetriever
from mesm_core.inference.questions import Question
from mesm_core.inference.retriever import Retriever, VideoFeatures
from mesm_core.inference.scoring import checkpoint_paths
from mesm_core.inference.windows import AUTO, Window
from mesm_core.inference.zero_shot_files import clip_features, names_zero_shot, refuse_dataset, zero_shot_paths
from mesm_core.inference.zero_shot_retriever import UNTRAINED, ZeroShotRetriever
from mesm_core.metrics.nms import NO_NMS
from mesm_core.official.checkpoint import checkpoint_files, load_any_checkpoint
from mesm_core.types import Prediction

AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Reply:
    """A question with its answer and the video duration that was used, in seconds."""

    question: Question
    answer: Answer
    duration: float

    def suppressed(self, nms: float) -> Reply:
        """Return the reply after temporal NMS with the IoU threshold ``nms``; -1 keeps all moments."""
        return replace(self, answer=self.answer.suppressed(nms))

    def confident(self, least: float) -> Reply:
        """Return the reply with the moments that have at least a confidence, as ``Answer.confident``."""
        return replace(self, answer=self.answer.confident(least))

    def prediction(self) -> Prediction:
        """Return the reply as a line of a submission file."""
        return self.answer.prediction(self.question.qid, self.question.vid)


class FileRetriever:
    """Answers questions with a retriever and the features of the videos.

    Args:
        dataset, annotations: settings and folder of the annotations that give durations of videos; ``dataset`` may be
            None.
        inputs: the files that were read; warnings: those of the checkpoint.
    """

    def __init__(
        self,
        retriever: Retriever,
        features: VideoFeatures,
        dataset: DatasetConfig | None,
        annotations: Path,
        *,
        inputs: Sequence[Path] = (),
        warnings: Sequence[str] = (),
    ) -> None:
        self.inputs, self.warnings = tuple(inputs), tuple(warnings)
        self._retriever = retriever
        self._features = features
        self._dataset = dataset
        self._annotations = annotations
        self._annotated: dict[str, float] | None = None

    @property
    def calibrated(self) -> bool:
        """Whether answers have a confidence."""
        return self._retriever.calibrated

    def check_confidence(self, least: float | None) -> float | None:
        """Return a minimum confidence, or None if there is none.

        Raises:
            ConfigError: it is not in [0, 1], or answers have no confidence.
        """
        if least is None:
            return None
        if not self.calibrated:
            raise not_calibrated()
        return check_confidence(least)

    def answer(
        self,
        questions: Iterable[Question],
        *,
        nms: float = NO_NMS,
        independent: bool = False,
        window: Window = AUTO,
        min_confidence: float | None = None,
    ) -> Iterator[Reply]:
        """Yield one reply per question, in order; questions are read lazily.

        Args:
            nms: IoU threshold of temporal NMS; -1 for none, as in submissions to benchmarks.
            independent: do not encode the questions about a video together.
            window: windows of long videos, as for ``MomentRetriever.locate``.
            min_confidence: drop moments of less confidence; None keeps all.

        Raises:
            MesmError: a video has no features or no known duration, a query is invalid, or ``check_confidence`` fails.
        """
        least = self.check_confidence(min_confidence)
        stream = iter(questions)
        while part := list(islice(stream, AT_ONCE)):
            groups = [[question] for question in part] if independent else _by_video(part)
            asked = [self._asked(group) for group in groups]
            answers = self._retriever.locate_many(asked, nms=nms, window=window)
            replies_by_question = {
                id(question): Reply(question, answer, video.duration)
                for group, video, replies in zip(groups, asked, answers, strict=True)
                for question, answer in zip(group, replies, strict=True)
            }
            for question in part:
                reply = replies_by_question[id(question)]
                yield reply if least is None else reply.confident(least)

    def _asked(self, group: Sequence[Question]) -> VideoQueries:
        vid = group[0].vid
        self._features.require([vid], skippable=False)
        given = next((question.duration for question in group if question.duration is not None), None)
        duration = given if given is not None else self._features.duration(vid)
        if duration is None:
            duration = self._annotated_duration(vid)
        return VideoQueries(self._features.raw(vid), [question.query for question in group], duration)

    def _annotated_duration(self, vid: str) -> float:
        if self._annotated is None:
            self._annotated = annotated_durations(self._dataset, self._annotations) if self._dataset else {}
        if vid not in self._annotated:
            where = f", and the annotations in {self._annotations} do not have the video" if self._dataset else ""
            raise DataError(
                f"The duration of video '{vid}' is unknown: the feature file does not have it{where}.",
                hint="Give --duration SECONDS, or store it with the features: with `mesm prepare npy2hdf5 --fps RATE`, "
                "or as a number called 'duration' in an .npz file.",
            )
        return self._annotated[vid]


def load_file_retriever(
    path: Path,
    *,
    dataset: str | None = None,
    root: Path | None = None,
    annotations: Path | None = None,
    features: Sequence[Path] = (),
    text: Path | None = None,
    config_file: Path | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
) -> FileRetriever:
    """Return a retriever for a checkpoint and the videos of its feature files.

    Args:
        path: a checkpoint, or ``zero-shot``; dataset: preset for zero-shot, or None to use only the given files.
        root: data folder; annotations, features, text: paths that override those in the data folder. Features are
            HDF5 files of many videos, or the .npy and .npz files of one video.
        config_file, overrides: settings to change, as for ``changed_config``.

    Raises:
        MesmError: a file is missing or does not fit.
    """
    if names_zero_shot(path):
        chosen = None
        if dataset is not None or config_file is not None or overrides:
            chosen = load_config(dataset, file=config_file, overrides=overrides)
        return _zero_shot_file_retriever(chosen, root, annotations, features, text, device)
    refuse_dataset(dataset, path)
    checkpoint = load_any_checkpoint(path)
    config = changed_config(checkpoint.config, source=str(path), file=config_file, overrides=overrides)
    paths = checkpoint_paths(checkpoint, config, root, annotations=annotations, features=features, text=text)
    retriever = MomentRetriever.from_checkpoint(checkpoint, config=config, device=device, text=text, paths=paths)
    inputs = [*checkpoint_files(path), *data_files(config, paths)]
    videos = _video_features(paths.features, lambda: build_features(config, paths))
    return FileRetriever(
        retriever, videos, config.dataset, paths.annotations, inputs=inputs, warnings=checkpoint.warnings
    )


def _zero_shot_file_retriever(
    config: Config | None,
    root: Path | None,
    annotations: Path | None,
    features: Sequence[Path],
    clip: Path | None,
    device: str,
) -> FileRetriever:
    paths = zero_shot_paths(config, root, annotations=annotations, features=features, clip=clip)
    retriever = ZeroShotRetriever.load(paths.text, device=device)
    width = retriever.sentences.width
    videos = _video_features(paths.features, lambda: clip_features(config, paths, given=bool(features), width=width))
    inputs = [*paths.features, paths.text] if config is None else data_files(config, paths)
    dataset = None if config is None else config.dataset
    return FileRetriever(retriever, videos, dataset, paths.annotations, inputs=inputs, warnings=(UNTRAINED,))


def _video_features(files: Sequence[Path], store: Callable[[], VideoFeatures]) -> VideoFeatures:
    """Return the features of one video from .npy and .npz files, else the result of ``store()``."""
    for path in files:
        refuse_pictures(path)
    return OneVideo(files) if any(map(is_array_file, files)) else store()


def annotated_durations(dataset: DatasetConfig, folder: Path) -> dict[str, float]:
    """Return the durations in seconds of the videos in all readable splits of a dataset."""
    reader = make_reader(dataset.name)
    durations: dict[str, float] = {}
    for split in reader.splits or (dataset.train, *dataset.eval):
        try:
            queries = reader.read(folder, split).queries
        except DataError:
            continue  # a missing split has no durations
        durations |= {query.vid: query.duration for query in queries}
    return durations


def _by_video(questions: Sequence[Question]) -> list[list[Question]]:
    groups: dict[tuple[str, float | None], list[Question]] = {}
    for question in questions:
        groups.setdefault((question.vid, question.duration), []).append(question)
    return list(groups.values())
