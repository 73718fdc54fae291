"""Loads a checkpoint with the queries that its calibration is fitted on, and stores the calibration in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mesm_core.build import Paths, build_features, data_files, read_queries
from mesm_core.build.data import SplitQueries
from mesm_core.checkpoint import WEIGHTS, Checkpoint, save_checkpoint, weights_hash
from mesm_core.confidence.calibration import Calibration, not_calibrated, refuse_untestable
from mesm_core.confidence.negatives import Questions
from mesm_core.confidence.samples import Samples
from mesm_core.config.schema import Config
from mesm_core.data.dataset import MomentDataset
from mesm_core.data.features import FeatureStore
from mesm_core.data.readers.json_lines import read_lines
from mesm_core.errors import ConfigError
from mesm_core.inference.calibrating import (
    Examinee,
    ask,
    calibrate,
    halves_of,
    halves_to_ask,
    question_count,
    question_counts,
)
from mesm_core.inference.evaluate import Progress
from mesm_core.inference.predictor import MomentRetriever
from mesm_core.inference.scoring import Job, checkpoint_paths
from mesm_core.inference.trained import settings_of
from mesm_core.inference.zero_shot_files import names_zero_shot
from mesm_core.official.checkpoint import checkpoint_files, load_any_checkpoint
from mesm_core.types import Query


@dataclass(frozen=True)
class CalibrationJob:
    """A checkpoint and the queries to fit its calibration on.

    ``data``: name of the queries; ``questions``: number of questions that the model is asked; ``skipped``: videos
    without features; ``repairs``: of annotations, by kind; ``inputs``: the files that are read, without the checkpoint.
    """

    checkpoint: Checkpoint
    examinee: Examinee
    queries: tuple[Query, ...]
    data: str
    questions: int
    skipped: list[str]
    repairs: Mapping[str, int]
    inputs: tuple[Path, ...]

    def run(self, progress: Progress | None = None) -> Calibration:
        """Return the fitted calibration."""
        weights = weights_hash(self.checkpoint.model)
        return calibrate(self.examinee, self.queries, weights=weights, data=self.data, progress=progress)


def load_for_calibration(
    path: Path,
    *,
    on: Path | None = None,
    split: str | None = None,
    root: Path | None = None,
    annotations: Path | None = None,
    features: Sequence[Path] = (),
    text: Path | None = None,
    device: str = "auto",
    skip_missing: bool = False,
) -> CalibrationJob:
    """Return a checkpoint's model with the queries of a split, by default those that chose the checkpoint.

    Args:
        on: JSON lines in Moment-DETR's format with queries about other videos; ``features`` are then theirs.
        root: data folder; annotations, features, text: paths that override those in the data folder.

    Raises:
        DataError: there are too few queries; MesmError: a file is missing or does not fit.
    """
    if names_zero_shot(path):
        raise ConfigError("zero-shot has no checkpoint that could keep a calibration.")
    if on is not None and split is not None:
        raise ConfigError("Give a split of the dataset or a file of queries, not both.")
    checkpoint = load_any_checkpoint(path)
    config = settings_of(checkpoint)
    paths = checkpoint_paths(checkpoint, config, root, annotations=annotations, features=features, text=text)
    store = build_features(config, paths)
    splits = () if on is not None else (split,) if split is not None else config.select_splits
    read = _read(config, paths, store, on, splits, skip_missing=skip_missing)
    halves = halves_to_ask(read.queries)  # before the model is built
    uncalibrated = replace(checkpoint, calibration={})
    retriever = MomentRetriever.from_checkpoint(uncalibrated, device=device, text=text, paths=paths)
    inputs = [*paths.features, paths.text, on] if on is not None else data_files(config, paths, splits)
    return CalibrationJob(
        checkpoint,
        Examinee(retriever.model, config, retriever.text, store, retriever.device),
        read.queries,
        data_name(config, splits) if on is None else on.name,
        question_count(halves),
        read.missing,
        read.repairs,
        tuple(inputs),
    )


def data_name(config: Config, splits: Sequence[str]) -> str:
    """Return the name of a dataset's splits, e.g. ``tacos val``."""
    return f"{config.dataset.name} {', '.join(Path(split).name for split in splits)}"


@dataclass(frozen=True)
class ConfidenceTest:
    """The questions that test the confidence of a model on a split.

    ``halves``: real queries and negatives, without the videos that the calibration was fitted on; ``unseen_half``:
    whether videos were left out.
    """

    retriever: MomentRetriever
    calibration: Calibration
    features: FeatureStore
    halves: tuple[Questions, ...]
    unseen_half: bool

    @property
    def questions(self) -> int:
        """The number of questions."""
        return question_count(self.halves)

    def run(self, progress: Progress | None = None) -> dict[str, Any]:
        """Return the report (``mesm_core.confidence.report.confidence_report``), with ``unseen_half``.

        Raises:
            DataError: there are too few questions.
        """
        retriever = self.retriever
        examinee = Examinee(retriever.model, retriever.config, retriever.text, self.features, retriever.device)
        samples = [sample for half in self.halves for sample in ask(examinee, half, progress=progress).samples]
        return self.calibration.tested(Samples(samples)) | {"unseen_half": self.unseen_half}


def confidence_test(job: Job) -> ConfidenceTest:
    """Return the test of the confidence of a job's model on its split.

    Raises:
        ConfigError: the model has no calibration; DataError: the split has too few queries, or no ground truth.
    """
    retriever, dataset = job.retriever, job.dataset
    calibration = retriever.calibration if isinstance(retriever, MomentRetriever) else None
    if calibration is None or not isinstance(retriever, MomentRetriever) or not isinstance(dataset, MomentDataset):
        raise not_calibrated()
    queries = job.truth or dataset.queries
    unseen = [query for query in queries if not calibration.may_know(query)]
    halves = tuple(half for half in halves_of(unseen, seed=calibration.seed) if half.real)
    refuse_untestable(question_counts(halves))
    return ConfidenceTest(retriever, calibration, dataset.features, halves, len(unseen) < len(queries))


def check_target(path: Path, output: Path | None) -> Path:
    """Return the file to write the calibrated checkpoint to: ``output``, or else the checkpoint itself.

    Raises:
        ConfigError: the checkpoint is an exported folder or a published file, which cannot be replaced.
    """
    if output is None and ((path / WEIGHTS).is_file() or path.suffix == ".ckpt"):
        raise ConfigError(
            f"{path} cannot hold a calibration: it is an exported folder or a file of the published format.",
            hint="Name the checkpoint to write: --output FILE.pt",
        )
    return output or path


def store_calibration(job: CalibrationJob, calibration: Calibration, target: Path) -> None:
    """Write the job's checkpoint with the calibration; everything else in it stays the same.

    Raises:
        OutputError: the file could not be written; an earlier file is unchanged.
    """
    save_checkpoint(target, replace(job.checkpoint, calibration=calibration.as_dict()))


def input_files(path: Path, job: CalibrationJob) -> list[Path]:
    """Return the files that the job reads, the checkpoint first."""
    return [*checkpoint_files(path), *job.inputs]


def _read(
    config: Config, paths: Paths, store: FeatureStore, on: Path | None, splits: Sequence[str], *, skip_missing: bool
) -> SplitQueries:
    """Return the queries of a file or of all splits."""
    if on is None:
        found = [read_queries(config, paths, split, store, skip_missing=skip_missing) for split in splits]
        repairs: Counter[str] = Counter()
        for part in found:
            repairs.update(part.repairs)
        queries = tuple(query for part in found for query in part.queries)
        return SplitQueries(queries, [vid for part in found for vid in part.missing], dict(repairs))
    read = read_lines(on)
    vids = dict.fromkeys(query.vid for query in read.queries)
    missing = set(store.missing(vids))
    if not skip_missing or missing == set(vids):
        store.require(vids)
    kept = tuple(query for query in read.queries if query.vid not in missing)
    return SplitQueries(kept, sorted(missing), dict(read.repairs))
