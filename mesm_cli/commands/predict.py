"""``mesm predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mesm_cli import options, render

if TYPE_CHECKING:
    from mesm_core import Answer


def predict(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="best.pt or last.pt of a run.")],
    queries: Annotated[list[str], typer.Argument(metavar="QUERY...", help="Sentences, each in quotes.")],
    video: Annotated[str, typer.Option("--video", help="Which video of the feature file.")],
    features: options.Features = None,
    duration: Annotated[
        float | None,
        typer.Option(
            "--duration",
            help="The video's length in seconds. Default: from the feature file, else from the annotations.",
            show_default=False,
            rich_help_panel=options.DATA,
        ),
    ] = None,
    data_dir: options.DataDir = None,
    annotations: options.AnnotationsDir = None,
    glove: options.Glove = None,
    clip: options.Clip = None,
    independent: Annotated[
        bool, typer.Option("--independent", help="Encode each query on its own, not all as one group.")
    ] = False,
    top: Annotated[int, typer.Option("--top", min=1, help="Moments to show of each query.")] = 5,
    device: options.Device = "auto",
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Find the moments of a video in which sentences happen.

    Checkpoints of the published implementation work as they are; unlike ours they hold no word vectors, so --glove
    names the file. --clip says where CLIP's weights lie, if they were moved.

    Example: mesm predict runs/tacos-default/best.pt --features c3d.hdf5 --video s30-d52.avi "She took out kiwi"
    """  # fmt: skip
    from mesm_core.inference.scoring import locate_in_video

    answers, seconds = locate_in_video(
        checkpoint,
        queries,
        vid=video,
        duration=duration,
        root=data_dir,
        annotations=annotations,
        features=features or (),
        text=glove or clip,
        independent=independent,
        device=device,
    )
    if json_:
        render.data([_as_json(answer, video, seconds, top) for answer in answers])
        return
    for answer in answers:
        render.say(f"[bold]{render.plain(answer.query)}[/]  in {render.plain(video)}")
        rows = [(moment.start, moment.end, moment.score) for moment in answer.moments[:top]]
        render.timeline(rows, duration=seconds, saliency=answer.saliency)


def _as_json(answer: Answer, video: str, duration: float, top: int) -> dict[str, object]:
    moments = [{"start": m.start, "end": m.end, "score": m.score} for m in answer.moments[:top]]
    return {
        "query": answer.query,
        "video": video,
        "duration": duration,
        "moments": moments,
        "saliency": answer.saliency.tolist(),
    }
