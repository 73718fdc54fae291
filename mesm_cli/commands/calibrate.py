"""``mesm calibrate``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from mesm_cli import completion, options, render

On = Annotated[
    Path | None,
    typer.Option(
        "--on",
        metavar="FILE.jsonl",
        help="Queries about your own videos with their moments, as JSON lines (vid, duration, query, "
        "relevant_windows). --features names the features of these videos.",
        show_default=False,
        rich_help_panel=options.DATA,
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split", help="Split to calibrate on. Default: the one that chose the checkpoint.", show_default=False
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Write the calibrated checkpoint to this file. Default: store the calibration in CKPT.",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]


def calibrate(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="best.pt of a run.", autocompletion=completion.checkpoints)
    ],
    on: On = None,
    split: SplitOption = None,
    data_dir: options.DataDir = None,
    annotations: options.AnnotationsDir = None,
    features: options.Features = None,
    glove: options.Glove = None,
    clip: options.Clip = None,
    skip_missing: options.SkipMissing = False,
    device: options.Device = "auto",
    output: Output = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Fit the confidence of a checkpoint's answers, and store it in the checkpoint.

    `mesm train` does this at its end. The model is asked the queries of a split, sentences of the same split about
    other videos, and sentences about things that the videos do not show. Half of the videos fit the probabilities, the
    other half tests them. The model's own outputs do not change.

    Examples:

      mesm calibrate runs/tacos-default/best.pt

      mesm calibrate best.pt --on mine.jsonl --features mine.hdf5
    """
    from mesm_cli.confidence_tables import show_report
    from mesm_core.errors import count
    from mesm_core.inference.calibration_job import (
        check_target,
        input_files,
        load_for_calibration,
        store_calibration,
    )
    from mesm_core.places import refuse_existing, refuse_inputs

    target = check_target(checkpoint, output)
    if output is not None:
        refuse_existing(output, overwrite=overwrite)
    with _unchanged(target) if output is None else nullcontext():
        job = load_for_calibration(
            checkpoint,
            on=on,
            split=split,
            root=data_dir,
            annotations=annotations,
            features=features or (),
            text=glove or clip,
            device=device,
            skip_missing=skip_missing,
        )
        refuse_inputs([target], input_files(checkpoint, job) if output is not None else job.inputs)
        for warning in job.checkpoint.warnings:
            render.warn(warning)
        if job.repairs:
            made = ", ".join(f"{times} {what}" for what, times in job.repairs.items())
            render.note(f"Repaired annotations: {made}")
        if job.skipped:
            render.warn(f"Left out: {count(len(job.skipped), 'video')} without features")
        with render.progress(f"Calibrating on {job.data}", job.questions, unit="questions") as advance:
            calibration = job.run(lambda done: advance(done, ""))
        store_calibration(job, calibration, target)
    if json_:
        render.data({"checkpoint": str(target), **calibration.as_dict()})
        return
    show_report(calibration.report, data=calibration.data)
    render.say(f"Calibration: {target!s}")


@contextmanager
def _unchanged(checkpoint: Path) -> Iterator[None]:
    """Keep a run from replacing its checkpoint within the context."""
    from mesm_core.training.directory import CONFIG, claimed

    if not (checkpoint.parent / CONFIG).is_file():
        yield
        return
    with claimed(checkpoint.parent, hint="Wait for it, or name another file: --output FILE.pt"):
        yield
