"""``mesm predict``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mesm_cli import options, render
from mesm_cli.answer_warnings import AnswerWarnings, note_no_confidence

if TYPE_CHECKING:
    from mesm_core.inference.asking import Reply
    from mesm_core.inference.questions import Question

PIPE = Path("-")
STDIN = Path("/dev/stdin")
SHOWN = 5

Video = Annotated[
    str | None, typer.Option("--video", help="Name of the video in the feature file, for queries that do not name one.")
]
Features = Annotated[
    list[Path] | None,
    typer.Option(
        "--features",
        help="HDF5 file with the features of many videos, or the .npy or .npz file of one video. Repeat to join "
        "several files, in this order. Default: the dataset's.",
        show_default=False,
        rich_help_panel=options.DATA,
    ),
]
Queries = Annotated[
    Path | None,
    typer.Option(
        "--queries",
        help="File of queries, one per line: sentences (.txt), or JSON with query and vid (.jsonl). - reads stdin.",
        show_default=False,
    ),
]
Duration = Annotated[
    float | None,
    typer.Option(
        "--duration",
        help="Duration of the video in seconds. Default: from the feature file, else from the annotations.",
        show_default=False,
        rich_help_panel=options.DATA,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Write predictions as JSON lines in the usual submission format. - writes to stdout.",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        help="Draw moments and saliency, as a web page (.html) or, with matplotlib, as an image (.png, .svg).",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]
Top = Annotated[
    int | None,
    typer.Option(
        "--top", min=1, help="Number of moments for each query. Default: 5; in files all.", show_default=False
    ),
]
Nms = Annotated[
    float | None,
    typer.Option(
        "--nms",
        help="Drop moments that overlap a better one by more than this, in (0, 1]. -1 keeps all. Default: 0.7, and -1 "
        "in --output.",
        show_default=False,
        callback=options.check_nms,
    ),
]


def predict(
    checkpoint: options.CheckpointFile,
    sentences: Annotated[
        list[str] | None, typer.Argument(metavar="QUERY", help="Sentences, each in quotes.", show_default=False)
    ] = None,
    video: Video = None,
    queries: Queries = None,
    features: Features = None,
    duration: Duration = None,
    dataset: options.ZeroShotDataset = None,
    data_dir: options.DataDir = None,
    annotations: options.AnnotationsDir = None,
    glove: options.Glove = None,
    clip: options.Clip = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    independent: options.Independent = False,
    top: Top = None,
    nms: Nms = None,
    window: options.Window = "auto",
    min_confidence: options.MinConfidence = None,
    device: options.Device = "auto",
    output: Output = None,
    plot: Plot = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Find the moments that sentences describe, from features of videos.

    Checkpoints of the published implementation work as they are. They do not contain word vectors, so --glove must name
    the file. --clip names CLIP's weights if they were moved. --set and --config can change dataset.max_frames,
    model.fast, eval.… and data.…; all other settings come from the checkpoint.

    zero-shot instead of a checkpoint uses CLIP alone, without training. It needs CLIP's image features.

    Examples:

      mesm predict best.pt --video s30-d52.avi "She took out kiwi"

      mesm predict best.pt --queries queries.jsonl --output answers.jsonl
    """
    from mesm_core.data.one_video import video_name
    from mesm_core.files import together
    from mesm_core.inference.asking import load_file_retriever
    from mesm_core.metrics.nms import NO_NMS, PEOPLE_NMS
    from mesm_core.pages.predictions import write_plot
    from mesm_core.places import refuse_inputs

    outputs = _outputs(output, plot, overwrite=overwrite)
    with together(), ExitStack() as stack:
        questions = _questions(sentences or [], queries, video or video_name(features or []), duration)
        retriever = load_file_retriever(
            checkpoint,
            dataset=dataset,
            root=data_dir,
            annotations=annotations,
            features=features or (),
            text=options.text_file(checkpoint, glove, clip),
            config_file=config,
            overrides=set_ or [],
            device=device,
        )
        for warning in retriever.warnings:
            render.warn(warning)
        refuse_inputs(outputs, [*retriever.inputs, STDIN if not sentences and queries in (None, PIPE) else queries])
        raw = NO_NMS if nms is None else nms
        replies = retriever.answer(
            questions, nms=raw, independent=independent, window=window, min_confidence=min_confidence
        )
        if output is not None:
            replies = _written(stack, replies, output, top=top, overwrite=overwrite)
        if nms is None:
            replies = (reply.suppressed(PEOPLE_NMS) for reply in replies)
        shown = _shown(replies, top or SHOWN, quiet=json_ or output is not None)
        kept = [reply for reply in shown if plot or json_]
        if plot is not None:
            write_plot(plot, kept, top=top or SHOWN, overwrite=overwrite)
    _tell(kept, output, plot, top=top, json_=json_, calibrated=retriever.calibrated)


def _outputs(output: Path | None, plot: Path | None, *, overwrite: bool) -> list[Path]:
    """Return the files to write, after checking that they can be written."""
    from mesm_core.pages.predictions import check_plot
    from mesm_core.places import refuse_existing

    outputs = [path for path in (output, plot) if path is not None and path != PIPE]
    for path in outputs:
        refuse_existing(path, overwrite=overwrite)
    if plot is not None:
        check_plot(plot)
    return outputs


def _tell(
    kept: list[Reply], output: Path | None, plot: Path | None, *, top: int | None, json_: bool, calibrated: bool
) -> None:
    """Print the replies as JSON with --json, and the names of the files that were written."""
    if plot is not None:
        render.note(f"Plot: {plot}")
    if json_:
        render.data([_as_json(reply, top or SHOWN) for reply in kept])
    elif output is not None and output != PIPE:
        render.note(f"Predictions: {output}")
    elif output is None and not calibrated:
        note_no_confidence()


def _questions(
    sentences: list[str], file: Path | None, video: str | None, duration: float | None
) -> Iterator[Question]:
    """Return the questions from the command line, a file or stdin. They are read when they are needed."""
    from mesm_core.inference.questions import Question, questions_of_file, read_questions

    if sentences and file is not None:
        raise typer.BadParameter("give sentences or a file of them, not both", param_hint="--queries")
    if sentences:
        if video is None:
            raise typer.BadParameter("name the video in the feature file", param_hint="--video")
        return (Question(number, video, text, duration) for number, text in enumerate(sentences, start=1))
    if file is None and sys.stdin.isatty():
        raise typer.BadParameter("give a sentence in quotes, or --queries FILE", param_hint="QUERY")
    if file is None or file == PIPE:
        return read_questions(sys.stdin, source="standard input", video=video, duration=duration)
    return questions_of_file(file, video=video, duration=duration)


def _written(
    stack: ExitStack, replies: Iterable[Reply], output: Path, *, top: int | None, overwrite: bool
) -> Iterator[Reply]:
    """Write each reply as a line of a submission file, then yield it."""
    from mesm_core.files import text_output

    file = sys.stdout if output == PIPE else stack.enter_context(text_output(output, overwrite=overwrite))
    for reply in replies:
        line = reply.prediction().as_json()
        line["pred_relevant_windows"] = line["pred_relevant_windows"][:top]  # type: ignore[index]
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
        if file is sys.stdout:
            file.flush()
        yield reply


def _shown(replies: Iterable[Reply], top: int, *, quiet: bool) -> Iterator[Reply]:
    """Draw each reply unless ``quiet``, then yield it. Progress and warnings go to stderr."""
    warnings = AnswerWarnings()
    with render.progress("Answering", None, unit="queries") as advance:
        for reply in replies:
            warnings.warn_about(reply.answer, reply.question.vid)
            if not quiet:
                render.answer(reply.answer, video=reply.question.vid, duration=reply.duration, top=top)
            advance(1, "")
            yield reply
    warnings.count_the_rest()


def _as_json(reply: Reply, top: int) -> dict[str, object]:
    question, answer = reply.question, reply.answer
    about = {"qid": question.qid, "query": answer.query, "video": question.vid, "duration": reply.duration}
    return about | answer.as_json(top)
