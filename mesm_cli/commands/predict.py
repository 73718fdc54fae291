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
from mesm_cli.warned import Warned

if TYPE_CHECKING:
    from mesm_core.inference.asking import Reply
    from mesm_core.inference.questions import Question

PIPE = Path("-")
STDIN = Path("/dev/stdin")
SHOWN = 5

Video = Annotated[
    str | None, typer.Option("--video", help="Which video of the HDF5 file, where the queries do not say.")
]
Features = Annotated[
    list[Path] | None,
    typer.Option(
        "--features",
        help="HDF5 file of many videos' features, or one video's .npy or .npz; repeat it to join several, in this "
        "order. Default: the dataset's.",
        show_default=False,
        rich_help_panel=options.DATA,
    ),
]
Queries = Annotated[
    Path | None,
    typer.Option(
        "--queries",
        help="Queries from a file, one a line: sentences (.txt), or JSON with query and vid (.jsonl); - for stdin.",
        show_default=False,
    ),
]
Duration = Annotated[
    float | None,
    typer.Option(
        "--duration",
        help="The video's length in seconds. Default: from the feature file, else from the annotations.",
        show_default=False,
        rich_help_panel=options.DATA,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Write the field's submission format (.jsonl) as answers come; - for stdout.",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        help="Draw moments and saliency: a page (.html), or with matplotlib a picture (.png, .svg).",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]
Top = Annotated[
    int | None,
    typer.Option("--top", min=1, help="Moments of each query. Default: 5; in files all.", show_default=False),
]
Nms = Annotated[
    float | None,
    typer.Option(
        "--nms",
        help="Leave out moments that overlap a better one by more than this; -1 keeps all. Default: 0.7, but -1 in "
        "--output.",
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
    device: options.Device = "auto",
    output: Output = None,
    plot: Plot = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Find the moments of videos in which sentences happen.

    Checkpoints of the published implementation work as they are; unlike ours they hold no word vectors, so --glove
    names the file. --clip says where CLIP's weights lie, if they were moved. --set and --config change
    dataset.max_frames, model.fast, eval.… and data.…; the other settings are the checkpoint's.

    zero-shot in place of a checkpoint is CLIP alone, without training; it needs CLIP's image features.

    Examples: mesm predict runs/tacos-default/best.pt --features c3d.hdf5 --video s30-d52.avi "She took out kiwi"

    cat queries.jsonl | mesm predict runs/tacos-default/best.pt --queries - --output - | gzip > answers.jsonl.gz
    """
    from mesm_core.data.one_video import video_name
    from mesm_core.files import together
    from mesm_core.inference.asking import load_asker
    from mesm_core.metrics.nms import NO_NMS, PEOPLE_NMS
    from mesm_core.pages.predictions import write_plot
    from mesm_core.places import refuse_inputs

    outputs = _outputs(output, plot, overwrite=overwrite)
    with together(), ExitStack() as stack:
        questions = _questions(sentences or [], queries, video or video_name(features or []), duration)
        asker = load_asker(
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
        for warning in asker.warnings:
            render.warn(warning)
        refuse_inputs(outputs, [*asker.inputs, STDIN if not sentences and queries in (None, PIPE) else queries])
        replies = asker.answer(questions, nms=NO_NMS if nms is None else nms, independent=independent, window=window)
        if output is not None:
            replies = _written(stack, replies, output, top=top, overwrite=overwrite)
        if nms is None:
            replies = (reply.suppressed(PEOPLE_NMS) for reply in replies)
        shown = _shown(replies, top or SHOWN, quiet=json_ or output is not None)
        kept = [reply for reply in shown if plot or json_]
        if plot is not None:
            write_plot(plot, kept, top=top or SHOWN, overwrite=overwrite)
    _tell(kept, output, plot, top=top, json_=json_)


def _outputs(output: Path | None, plot: Path | None, *, overwrite: bool) -> list[Path]:
    """Return the files that will be written, after a look at whether they can be."""
    from mesm_core.pages.predictions import check_plot
    from mesm_core.places import refuse_existing

    outputs = [path for path in (output, plot) if path is not None and path != PIPE]
    for path in outputs:
        refuse_existing(path, overwrite=overwrite)
    if plot is not None:
        check_plot(plot)
    return outputs


def _tell(kept: list[Reply], output: Path | None, plot: Path | None, *, top: int | None, json_: bool) -> None:
    """Print the replies as JSON where that is wanted, and which files were written."""
    if plot is not None:
        render.note(f"Plot: {plot}")
    if json_:
        render.data([_as_json(reply, top or SHOWN) for reply in kept])
    elif output is not None and output != PIPE:
        render.note(f"Predictions: {output}")


def _questions(
    sentences: list[str], file: Path | None, video: str | None, duration: float | None
) -> Iterator[Question]:
    """Return the questions of the command line, a file or stdin, read as they are needed."""
    from mesm_core.inference.questions import Question, questions_of_file, read_questions

    if sentences and file is not None:
        raise typer.BadParameter("give sentences or a file of them, not both", param_hint="--queries")
    if sentences:
        if video is None:
            raise typer.BadParameter("say which video of the feature file is meant", param_hint="--video")
        return (Question(number, video, text, duration) for number, text in enumerate(sentences, start=1))
    if file is None and sys.stdin.isatty():
        raise typer.BadParameter("give a sentence in quotes, or --queries FILE", param_hint="QUERY")
    if file is None or file == PIPE:
        return read_questions(sys.stdin, source="standard input", video=video, duration=duration)
    return questions_of_file(file, video=video, duration=duration)


def _written(
    stack: ExitStack, replies: Iterable[Reply], output: Path, *, top: int | None, overwrite: bool
) -> Iterator[Reply]:
    """Yield the replies after writing each as a line of a submission file."""
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
    """Yield the replies, drawn as they come unless only files are wanted; count and warn on stderr."""
    warned = Warned()
    with render.progress("Answering", None, unit="queries") as advance:
        for reply in replies:
            warned.about(reply.answer, reply.question.vid)
            if not quiet:
                render.answer(reply.answer, video=reply.question.vid, duration=reply.duration, top=top)
            advance(1, "")
            yield reply
    warned.rest()


def _as_json(reply: Reply, top: int) -> dict[str, object]:
    question, answer = reply.question, reply.answer
    about = {"qid": question.qid, "query": answer.query, "video": question.vid, "duration": reply.duration}
    return about | answer.as_json(top)
