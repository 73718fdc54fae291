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

if TYPE_CHECKING:
    from mesm_core.inference.asking import Question, Reply

PIPE = Path("-")
SHOWN = 5

Video = Annotated[
    str | None, typer.Option("--video", help="Which video of the feature file, where the queries do not say.")
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
Independent = Annotated[bool, typer.Option("--independent", help="Encode each query on its own, not all as one group.")]
Top = Annotated[
    int | None,
    typer.Option("--top", min=1, help="Moments of each query. Default: 5; in files all.", show_default=False),
]
Nms = Annotated[float, typer.Option("--nms", help="Temporal NMS at this overlap; -1 for none.")]


def predict(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="best.pt or last.pt of a run.")],
    sentences: Annotated[
        list[str] | None, typer.Argument(metavar="QUERY", help="Sentences, each in quotes.", show_default=False)
    ] = None,
    video: Video = None,
    queries: Queries = None,
    features: options.Features = None,
    duration: Duration = None,
    data_dir: options.DataDir = None,
    annotations: options.AnnotationsDir = None,
    glove: options.Glove = None,
    clip: options.Clip = None,
    independent: Independent = False,
    top: Top = None,
    nms: Nms = -1,
    device: options.Device = "auto",
    output: Output = None,
    plot: Plot = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Find the moments of videos in which sentences happen.

    Checkpoints of the published implementation work as they are; unlike ours they hold no word vectors, so --glove
    names the file. --clip says where CLIP's weights lie, if they were moved.

    Examples: mesm predict runs/tacos-default/best.pt --features c3d.hdf5 --video s30-d52.avi "She took out kiwi"

    cat queries.jsonl | mesm predict runs/tacos-default/best.pt --queries - --output - | gzip > answers.jsonl.gz
    """
    from mesm_core.files import refuse_existing
    from mesm_core.inference.asking import load_asker
    from mesm_core.pages.predictions import check_plot, write_plot

    for path in (output, plot):
        if path is not None and path != PIPE:
            refuse_existing(path, overwrite=overwrite)
    if plot is not None:
        check_plot(plot)
    with ExitStack() as stack:
        questions = _questions(sentences or [], queries, video, duration)
        asker = load_asker(
            checkpoint,
            root=data_dir,
            annotations=annotations,
            features=features or (),
            text=glove or clip,
            device=device,
        )
        replies = asker.answer(questions, nms=nms, independent=independent)
        if output is not None:
            replies = _written(stack, replies, output, top=top, overwrite=overwrite)
        shown = _shown(replies, top or SHOWN, quiet=json_ or output is not None)
        kept = [reply for reply in shown if plot or json_]
    if plot is not None:
        write_plot(plot, kept, top=top or SHOWN, overwrite=overwrite)
        render.note(f"Plot: {plot}")
    if json_:
        render.data([_as_json(reply, top or SHOWN) for reply in kept])
    elif output is not None and output != PIPE:
        render.note(f"Predictions: {output}")


def _questions(
    sentences: list[str], file: Path | None, video: str | None, duration: float | None
) -> Iterator[Question]:
    """Return the questions of the command line, a file or stdin, read as they are needed."""
    from mesm_core.inference.asking import Question, read_questions
    from mesm_core.inputs import text_lines

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
    lines = text_lines(file, what="file of queries")
    return read_questions(lines, source=str(file), video=video, duration=duration)


def _written(
    stack: ExitStack, replies: Iterable[Reply], output: Path, *, top: int | None, overwrite: bool
) -> Iterator[Reply]:
    """Yield the replies after writing each as a line of a submission file."""
    from mesm_core.files import replacing

    if output == PIPE:
        file = sys.stdout
    else:
        temporary = stack.enter_context(replacing(output, overwrite=overwrite))
        file = stack.enter_context(temporary.open("w", encoding="utf-8"))
    for reply in replies:
        line = reply.prediction().as_json()
        line["pred_relevant_windows"] = line["pred_relevant_windows"][:top]  # type: ignore[index]
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
        if file is sys.stdout:
            file.flush()
        yield reply


def _shown(replies: Iterable[Reply], top: int, *, quiet: bool) -> Iterator[Reply]:
    """Yield the replies, drawn as they come unless only files are wanted; count them on stderr."""
    with render.progress("Answering", None, unit="queries") as advance:
        for reply in replies:
            if not quiet:
                render.say(f"[bold]{render.plain(reply.answer.query)}[/]  in {render.plain(reply.question.vid)}")
                rows = [(moment.start, moment.end, moment.score) for moment in reply.answer.moments[:top]]
                render.timeline(rows, duration=reply.duration, saliency=reply.answer.saliency)
            advance(1, "")
            yield reply


def _as_json(reply: Reply, top: int) -> dict[str, object]:
    moments = [{"start": m.start, "end": m.end, "score": m.score} for m in reply.answer.moments[:top]]
    return {
        "qid": reply.question.qid,
        "query": reply.answer.query,
        "video": reply.question.vid,
        "duration": reply.duration,
        "moments": moments,
        "saliency": reply.answer.saliency.tolist(),
    }
