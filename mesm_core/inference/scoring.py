"""Loads a checkpoint, or zero-shot, with the data of a split, and scores it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypedDict

import numpy as np

from mesm_core.build import (
    Paths,
    build_decoding,
    build_features,
    build_shortening,
    build_split,
    data_files,
    data_paths,
    metric_settings,
    read_queries,
)
from mesm_core.checkpoint import Checkpoint
from mesm_core.config.load import DATA_ROOT, load_config
from mesm_core.config.schema import Config
from mesm_core.data.dataset import MomentDataset
from mesm_core.data.readers import make_reader
from mesm_core.data.readers.json_lines import read_lines
from mesm_core.data.shortening import Shortening
from mesm_core.data.statistics import data_statistics, differences
from mesm_core.errors import DataError, listing
from mesm_core.inference.answers import VideoQueries
from mesm_core.inference.changes import changed_config
from mesm_core.inference.confident import with_confidence
from mesm_core.inference.evaluate import (
    Evaluation,
    Progress,
    predict_split,
    score_predictions,
    seen_seconds,
)
from mesm_core.inference.predictor import MomentRetriever
from mesm_core.inference.retriever import Retriever, predict_queries
from mesm_core.inference.windows import OFF, Window, check_window, window_frames
from mesm_core.inference.zero_shot_files import (
    clip_features,
    names_zero_shot,
    refuse_dataset,
    zero_shot_home,
    zero_shot_paths,
)
from mesm_core.inference.zero_shot_retriever import ZeroShotRetriever
from mesm_core.metrics.nms import NO_NMS
from mesm_core.official.checkpoint import checkpoint_files, load_any_checkpoint
from mesm_core.types import Prediction, Query


class Queries(Protocol):
    """The queries of a split, in file order."""

    @property
    def queries(self) -> tuple[Query, ...]:
        """The queries, with their windows where they are known."""
        ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Job:
    """A retriever and the split to score it on.

    ``predict``: returns one prediction per query, in file order; ``epoch``: of the checkpoint, None for zero-shot;
    ``home``: path from which the names of outputs are derived, that of the checkpoint; ``warnings``: unsupported flags
    of a published checkpoint, differences of the data from that of training, and videos that are too long for the
    model; ``inputs``: the files that were read; ``window``: windows of long videos, as for
    ``MomentRetriever.locate``; ``windowed``: indices of the queries about videos that are divided into windows;
    ``frames``: returns the features of a video as stored, one array per feature file, None for zero-shot.
    """

    config: Config
    retriever: Retriever
    dataset: Queries
    predict: Callable[[Progress | None], list[Prediction]]
    split: str
    epoch: int | None
    skipped: list[str]
    home: Path
    truth: tuple[Query, ...] | None = None
    warnings: tuple[str, ...] = ()
    inputs: tuple[Path, ...] = ()
    window: Window = OFF
    windowed: tuple[int, ...] = ()
    frames: Callable[[str], list[np.ndarray]] | None = None


class Changes(TypedDict):
    """Arguments that override a checkpoint's settings and paths; see ``settings_of_checkpoint``."""

    root: Path | None
    annotations: Path | None
    text: Path | None
    config_file: Path | None
    overrides: Sequence[str]


def load_for_scoring(
    path: Path,
    *,
    split: str | None = None,
    dataset: str | None = None,
    root: Path | None = None,
    annotations: Path | None = None,
    features: Sequence[Path] = (),
    text: Path | None = None,
    config_file: Path | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    skip_missing: bool = False,
    truth: Path | None = None,
    window: Window = OFF,
) -> Job:
    """Return a checkpoint's model and a split's data; ``split`` defaults to the first validation split.

    Args:
        path: a checkpoint, or ``zero-shot``; dataset: preset for zero-shot, which has no settings of its own.
        root: data folder; annotations, features, text: paths that override those in the data folder.
        config_file, overrides: settings to change, as for ``changed_config``.
        truth: ground truth of a split whose own file has none; default: the dataset's file, if it exists.
        window: windows of long videos; the published protocol uses none.

    Raises:
        MesmError: a file is missing or does not fit.
    """
    if names_zero_shot(path):
        config = load_config(dataset, file=config_file, overrides=overrides)
        paths = zero_shot_paths(config, root, annotations=annotations, features=features, clip=text)
        return _zero_shot_job(
            config, paths, given=bool(features), split=split, device=device, skip_missing=skip_missing, truth=truth
        )
    refuse_dataset(dataset, path)
    checkpoint = load_any_checkpoint(path)
    config = changed_config(checkpoint.config, source=str(path), file=config_file, overrides=overrides)
    paths = checkpoint_paths(checkpoint, config, root, annotations=annotations, features=features, text=text)
    retriever = MomentRetriever.from_checkpoint(checkpoint, config=config, device=device, text=text, paths=paths)
    chosen = split or config.dataset.eval[0]
    built = build_split(config, paths, chosen, retriever.text, build_features(config, paths), skip_missing=skip_missing)
    trained_on = checkpoint.data_statistics
    differing = differences(trained_on, data_statistics(built.dataset)) if trained_on else []
    known, truths = _known_truth(config, paths, chosen, built.dataset.queries, truth)
    window = check_window(window)
    windowed = _windowed(retriever, built.dataset, window)
    shortened = _shortened(built.dataset, windowed, build_shortening(config))
    return Job(
        config,
        retriever,
        built.dataset,
        partial(_predict_trained, retriever, built.dataset, window, windowed),
        chosen,
        checkpoint.epoch,
        built.missing,
        home=path,
        truth=known,
        warnings=(*checkpoint.warnings, *differing, *shortened),
        inputs=(*checkpoint_files(path), *data_files(config, paths, [chosen]), *truths),
        window=window,
        windowed=windowed,
        frames=built.dataset.features.raw,
    )


def _zero_shot_job(
    config: Config,
    paths: Paths,
    *,
    given: bool,
    split: str | None,
    device: str,
    skip_missing: bool,
    truth: Path | None,
) -> Job:
    retriever = ZeroShotRetriever.load(paths.text, device=device)
    chosen = split or config.dataset.eval[0]
    features = clip_features(config, paths, given=given, width=retriever.sentences.width)
    found = read_queries(config, paths, chosen, features, skip_missing=skip_missing)
    known, truths = _known_truth(config, paths, chosen, found.queries, truth)
    return Job(
        config,
        retriever,
        found,
        lambda progress: predict_queries(retriever, found.queries, features, progress=progress),
        chosen,
        None,
        found.missing,
        home=zero_shot_home(config),
        truth=known,
        inputs=(*data_files(config, paths, [chosen]), *truths),
    )


def _windowed(retriever: MomentRetriever, dataset: MomentDataset, window: Window) -> tuple[int, ...]:
    """Return the indices of the queries about videos that are divided into windows."""
    if window == OFF:
        return ()
    stored_length, max_frames = dataset.features.stored_length, retriever.config.dataset.max_frames
    return tuple(
        index
        for index, query in enumerate(dataset.queries)
        if window_frames(
            window,
            frames=stored_length(query.vid),
            duration=query.duration,
            lengths=retriever.lengths,
            max_frames=max_frames,
        )
    )


def _predict_trained(
    retriever: MomentRetriever,
    dataset: MomentDataset,
    window: Window,
    windowed: Sequence[int],
    progress: Progress | None,
) -> list[Prediction]:
    retriever.text.prepare(query.sentence for query in dataset.queries)
    config, shortening = retriever.config, build_shortening(retriever.config)
    predictions = predict_split(
        retriever.model,
        dataset,
        batch_size=config.eval.batch_size,
        device=retriever.device,
        decoding=build_decoding(config),
        shortening=shortening,
        known=_answers_in_windows(retriever, dataset, window, windowed, progress),
        progress=progress,
    )
    seconds = seen_seconds(dataset, dataset.queries, shortening)
    return with_confidence(retriever.calibration, predictions, seconds, retriever.text)


def _known_truth(
    config: Config, paths: Paths, split: str, queries: Sequence[Query], truth: Path | None
) -> tuple[tuple[Query, ...] | None, list[Path]]:
    """Return the ground truth of a split whose own file has none, or None, and the files that may contain it."""
    published = truth or make_reader(config.dataset.name).truths.get(split)
    if published is None:
        return None, []
    file = paths.annotations / published
    known = match_truth(queries, file) if truth is not None or file.is_file() else None
    return known, [file]


def match_truth(queries: Sequence[Query], path: Path) -> tuple[Query, ...]:
    """Return the queries of a ground-truth file (Moment-DETR's format) with the ids of ``queries``, in their order.

    Raises:
        DataError: the file is missing or malformed, or lacks some of the queries.
    """
    known = {query.qid: query for query in read_lines(path).queries}
    missing = [query.qid for query in queries if query.qid not in known]
    if missing:
        raise DataError(f"{path} lacks {len(missing)} of the split's queries: {listing(missing)}.")
    return tuple(known[query.qid] for query in queries)


def settings_of_checkpoint(
    path: Path,
    *,
    root: Path | None = None,
    annotations: Path | None = None,
    features: Sequence[Path] = (),
    text: Path | None = None,
    config_file: Path | None = None,
    overrides: Sequence[str] = (),
) -> tuple[Config, Paths, dict[str, Any]]:
    """Return a checkpoint's settings with changes, the paths of its data, and the statistics of its training data.

    Args:
        root, annotations, features, text: as for ``checkpoint_paths``; config_file, overrides: as for
            ``changed_config``.

    Raises:
        MesmError: the checkpoint cannot be read, or a setting may not be changed.
    """
    checkpoint = load_any_checkpoint(path)
    config = changed_config(checkpoint.config, source=str(path), file=config_file, overrides=overrides)
    paths = checkpoint_paths(checkpoint, config, root, annotations=annotations, features=features, text=text)
    return config, paths, checkpoint.data_statistics


def checkpoint_paths(
    checkpoint: Checkpoint,
    config: Config,
    root: Path | None,
    *,
    annotations: Path | None = None,
    features: Sequence[Path] = (),
    text: Path | None = None,
) -> Paths:
    """Return the given paths, else those in the data folder ``root``, else those of training."""
    return recorded_paths(checkpoint.paths, config, root, annotations=annotations, features=features, text=text)


def recorded_paths(
    recorded: Mapping[str, Any],
    config: Config,
    root: Path | None,
    *,
    annotations: Path | None = None,
    features: Sequence[Path] = (),
    text: Path | None = None,
) -> Paths:
    """Return the given paths, else those in the data folder ``root``, else the recorded ones.

    Published checkpoints do not record the paths of training; ./data is used for them.
    """
    if root is not None or not recorded:
        return data_paths(config, root or DATA_ROOT, annotations=annotations, features=features, text=text)
    return data_paths(
        config,
        Path(),
        annotations=annotations or Path(recorded["annotations"]),
        features=features or [Path(name) for name in recorded["features"]],
        text=text or Path(recorded["text"]),
    )


def _shortened(dataset: MomentDataset, windowed: Sequence[int], shortening: Shortening) -> list[str]:
    inside = set(windowed)
    videos = {query.vid: query.duration for index, query in enumerate(dataset.queries) if index not in inside}
    stored_length = dataset.features.stored_length
    return shortening.warnings_of_all([(stored_length(vid), seconds) for vid, seconds in videos.items()])


def score_checkpoint(job: Job, *, nms: float = -1, progress: Progress | None = None) -> Evaluation:
    """Return the predictions of a job, and metrics if the ground truth is known."""
    return score_predictions(
        job.predict(progress),
        job.dataset.queries if job.truth is None else job.truth,
        clip_len=job.config.dataset.clip_len,
        nms=nms,
        **metric_settings(job.config),
    )


def _answers_in_windows(
    retriever: MomentRetriever,
    dataset: MomentDataset,
    window: Window,
    windowed: Sequence[int],
    progress: Progress | None,
) -> dict[int, Prediction]:
    """Return the predictions about videos that are divided into windows, by query index."""
    inside, queries = set(windowed), dataset.queries
    asked_together: dict[tuple[int, str, float], list[int]] = {}
    groups = [group for batch in dataset.eval_plan(batch_size=1) for group in batch] if inside else []
    for number, group in enumerate(groups):
        for index in group:
            if index in inside:
                asked_together.setdefault((number, queries[index].vid, queries[index].duration), []).append(index)
    found: dict[int, Prediction] = {}
    for (_, vid, duration), indices in asked_together.items():
        asked = VideoQueries(dataset.features.raw(vid), [queries[index].sentence for index in indices], duration)
        (answers,) = retriever.locate_many([asked], nms=NO_NMS, window=window)
        for index, answer in zip(indices, answers, strict=True):
            found[index] = answer.prediction(queries[index].qid, vid)
        if progress is not None:
            progress(len(indices))
    return found
