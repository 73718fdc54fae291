"""``mesm eval``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mesm_cli import options, render
from mesm_cli.commands import own_videos
from mesm_cli.commands.evaluate_corpus import evaluate_corpus
from mesm_cli.commands.extract_options import Weights
from mesm_cli.confidence_tables import show_report

if TYPE_CHECKING:
    from mesm_core.inference.evaluate import Evaluation
    from mesm_core.inference.scoring import Changes, Job
    from mesm_core.inference.windows import Window

SplitOption = Annotated[
    str | None, typer.Option("--split", help="Split to evaluate. Default: the validation split.", show_default=False)
]
Truth = Annotated[
    Path | None,
    typer.Option(
        "--truth",
        help="Ground truth in Moment-DETR's format, for a split without annotations.",
        show_default=False,
        rich_help_panel=options.DATA,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Predictions file (.jsonl). Default: in predictions/ beside the checkpoint.",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]
Negatives = Annotated[
    bool,
    typer.Option(
        "--negatives",
        help="Also test the confidence of a calibrated checkpoint, on queries and on sentences without an answer.",
    ),
]
Corpus = Annotated[
    Path | None,
    typer.Option(
        "--corpus",
        metavar="INDEX",
        help="Ask each query of all videos of an index instead of its own video, and report the recall of videos and "
        "moments. The index has the videos of the split: `mesm index build INDEX clip_image.hdf5`.",
        show_default=False,
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        help="Write a web page (.html) with tables, histograms, and the best and worst answers.",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]


def evaluate(
    checkpoint: options.CheckpointFile,
    split: SplitOption = None,
    dataset: options.ZeroShotDataset = None,
    data_dir: options.DataDir = None,
    annotations: options.AnnotationsDir = None,
    features: options.Features = None,
    glove: options.Glove = None,
    clip: options.Clip = None,
    skip_missing: options.SkipMissing = False,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    truth: Truth = None,
    nms: options.Nms = -1,
    window: options.Window = "off",
    negatives: Negatives = False,
    corpus: Corpus = None,
    weights: Weights = None,
    device: options.Device = "auto",
    output: Output = None,
    report: Report = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Evaluate a checkpoint on a split: recall, mean IoU and mAP, also by length of the moments.

    Data are read from the data folder, or else from where they were at training. Checkpoints of the published
    implementation (model_test_best.ckpt) work as they are. They do not contain word vectors, so --glove must name the
    file. --clip names CLIP's weights if they were moved. --set and --config can change dataset.max_frames, eval.… and
    data.…; all other settings come from the checkpoint.

    zero-shot instead of a checkpoint evaluates CLIP without training, on the dataset of --dataset or --config. It needs
    CLIP image features, and text weights with their projection (mesm prepare clip-text).

    Examples:

      mesm eval runs/tacos-default/best.pt --split test

      mesm eval zero-shot --dataset charades

      mesm eval best.pt --split test --corpus test.index
    """
    from mesm_core.places import refuse_existing

    if corpus is not None and (output or report or negatives):
        raise typer.BadParameter("it cannot be combined with --output, --report or --negatives", param_hint="--corpus")
    for path in (output, report):
        if path is not None:
            refuse_existing(path, overwrite=overwrite)
    given: Changes = {
        "root": data_dir,
        "annotations": annotations,
        "text": options.text_file(checkpoint, glove, clip),
        "config_file": config,
        "overrides": set_ or [],
    }
    job = _load(
        checkpoint,
        given,
        features=features or [],
        split=split,
        device=device,
        skip_missing=skip_missing,
        dataset=dataset,
        truth=None if truth is None else truth.resolve(),
        window=window,
    )
    if corpus is not None:
        evaluate_corpus(job, corpus, weights or [], root=data_dir, device=device, json_=json_)
        return
    target = output or _usual_target(job)
    replace = overwrite or output is None
    written = _evaluate(job, checkpoint, target, report, nms=nms, negatives=negatives, replace=(replace, overwrite))
    if json_:
        render.data(written.tables)
    else:
        _show(checkpoint, job, written.evaluation, target, written.confidence)


@dataclass(frozen=True)
class _Written:
    """An evaluation whose files are written: with the tables of its JSON and the report of the confidence."""

    evaluation: Evaluation
    confidence: dict[str, Any] | None
    tables: dict[str, Any]


def _usual_target(job: Job) -> Path:
    from mesm_core.inference.evaluate import predictions_name

    return job.home.parent / "predictions" / f"{job.home.stem}-{predictions_name(job.split)}"


def _evaluate(
    job: Job,
    checkpoint: Path,
    target: Path,
    report: Path | None,
    *,
    nms: float,
    negatives: bool,
    replace: tuple[bool, bool],
) -> _Written:
    """Evaluate the split, and write the predictions, the metrics and the report.

    Args:
        replace: whether existing predictions and an existing report may be replaced.
    """
    from mesm_core.files import together
    from mesm_core.inference.evaluation_files import evaluation_files, write_evaluation
    from mesm_core.pages.report import write_report
    from mesm_core.places import refuse_inputs

    refuse_inputs([*evaluation_files(target), report], job.inputs)
    evaluation, confidence = _evaluated(job, nms=nms, negatives=negatives)
    with together():
        tables = write_evaluation(evaluation, job, checkpoint, target, confidence=confidence, overwrite=replace[0])
        if report is not None and evaluation.metrics is not None:
            write_report(report, evaluation, job.truth or job.dataset.queries, tables, overwrite=replace[1])
    if report is not None:
        _about_report(report, written=evaluation.metrics is not None)
    return _Written(evaluation, confidence, tables)


def _evaluated(job: Job, *, nms: float, negatives: bool) -> tuple[Evaluation, dict[str, Any] | None]:
    """Return the evaluation and, with ``negatives``, the report of the confidence; with progress."""
    from mesm_core.inference.calibration_job import confidence_test
    from mesm_core.inference.scoring import score_checkpoint

    test = confidence_test(job) if negatives else None
    if test is not None and job.windowed:
        render.warn("The confidence is tested on whole videos, not in windows.")
    with render.progress(f"Evaluating {job.split}", len(job.dataset), unit="queries") as advance:
        evaluation = score_checkpoint(job, nms=nms, progress=lambda count: advance(count, ""))
    if test is None:
        return evaluation, None
    with render.progress("Testing the confidence", test.questions, unit="questions") as advance:
        return evaluation, test.run(lambda count: advance(count, ""))


def _load(
    checkpoint: Path,
    given: Changes,
    *,
    features: list[Path],
    split: str | None,
    device: str,
    skip_missing: bool,
    dataset: str | None,
    truth: Path | None,
    window: Window,
) -> Job:
    """Load the model and the split, and print warnings about them. Missing features of own videos are extracted first.

    Args:
        given: options that override the settings of the checkpoint; the others: as for ``load_for_scoring``.
    """
    from mesm_core.errors import count
    from mesm_core.inference.scoring import load_for_scoring

    if not features:
        own_videos.extract_for(checkpoint, split, given, device=device, skip_missing=skip_missing)
    job = load_for_scoring(
        checkpoint,
        features=features,
        split=split,
        device=device,
        skip_missing=skip_missing,
        dataset=dataset,
        truth=truth,
        window=window,
        **given,
    )
    if job.skipped:
        render.warn(f"Left out: {count(len(job.skipped), 'video')} without features")
    for warning in job.warnings:
        render.warn(warning)
    return job


def _about_report(report: Path, *, written: bool) -> None:
    if written:
        render.note(f"Report: {report}")
    else:
        render.warn("The split has no ground truth, so no report was written.")


def _show(checkpoint: Path, job: Job, evaluation: Evaluation, target: Path, confidence: dict[str, Any] | None) -> None:
    """Print the metrics as tables."""
    from mesm_core.errors import count

    trained = "without training" if job.epoch is None else f"epoch {job.epoch}"
    render.say(f" ({trained}) on {job.split}: {count(len(job.dataset), 'query')}", title=str(checkpoint))
    if evaluation.metrics is None:
        render.say("The split has no ground truth, so there are no metrics. Name a file that has it with --truth.")
    else:
        render.metrics(evaluation.brief)
        render.say()
        render.length_table({k: v for k, v in evaluation.metrics.items() if not k.startswith("HL-")})
    if confidence is not None:
        render.say()
        show_report(confidence, data=job.split)
        if confidence["unseen_half"]:
            render.say("Videos that the calibration was fitted on were left out of its test.")
    render.say(f"Predictions: {target}")
