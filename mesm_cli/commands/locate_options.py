"""Options of ``mesm locate``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from mesm_cli import completion, options

AnyForm = TypeVar("AnyForm", bound=StrEnum)
SHOWN = 5
WHAT = "Videos and queries"


class Form(StrEnum):
    """Formats of the answers."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    SRT = "srt"
    EDL = "edl"


Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="VIDEO|QUERY",
        help="Video files or folders, and sentences in quotes. A word that is a file or is named like one is a video.",
        show_default=False,
    ),
]
Videos = Annotated[
    list[str] | None,
    typer.Option(
        "--video",
        metavar="FILE",
        help="A video, a folder, a quoted pattern, or a .txt list of videos. Repeatable.",
        show_default=False,
        rich_help_panel=WHAT,
    ),
]
Query = Annotated[
    list[str] | None,
    typer.Option(
        "--query",
        metavar="TEXT",
        help="A query, for words that would be taken for a video. Repeatable.",
        show_default=False,
        rich_help_panel=WHAT,
    ),
]
Queries = Annotated[
    Path | None,
    typer.Option(
        "--queries",
        metavar="FILE",
        help="File of queries, one per line: a sentence, or JSON with query and optionally vid, the video that it is "
        "about. - reads stdin.",
        show_default=False,
        rich_help_panel=WHAT,
    ),
]
Model = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="CKPT",
        help="Trained model: best.pt of a run, or a published checkpoint. Default: zero-shot (CLIP without training).",
        show_default=False,
        autocompletion=completion.retrievers,
    ),
]
Top = Annotated[int, typer.Option("--top", min=1, help="Number of moments for each query.")]
ClipLen = Annotated[
    str | None,
    typer.Option(
        "--clip-len",
        metavar="SECONDS",
        help="For zero-shot: seconds that each row of features covers. Default: 1. A trained model has its own.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    Form | None,
    typer.Option(
        "--format",
        help="table, json, csv, srt (subtitles, one video only) or edl (CMX3600). Default: by the ending of --output, "
        "else table.",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Write the answers to this file.", show_default=False, rich_help_panel=options.OUTPUT
    ),
]
Cut = Annotated[
    Path | None,
    typer.Option(
        "--cut",
        metavar="DIR",
        help="Write each moment as a clip to this folder.",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]
Fast = Annotated[
    bool,
    typer.Option(
        "--fast",
        help="Cut without re-encoding. This is fast, but clips begin at the keyframe before the moment.",
        rich_help_panel=options.OUTPUT,
    ),
]
Page = Annotated[
    Path | None,
    typer.Option(
        "--page",
        metavar="FILE.html",
        help="Write a web page with a player, clickable moments and the saliency curve.",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Download missing weights without asking.")]


def chosen_form(forms: type[AnyForm], form: AnyForm | None, output: Path | None, *, json_: bool) -> AnyForm:
    """Return the format of the answers: the one asked for, else by the ending of the output file, else the table.

    Args:
        forms: an enumeration with ``table`` and ``json``; form, output, json_: the options.
    """
    table, json = forms("table"), forms("json")
    if json_ and form not in (None, json):
        raise typer.BadParameter("give --json or another --format, not both", param_hint="--format")
    ending = "" if output is None else output.suffix.lower().removeprefix(".")
    files = [known.value for known in forms if known is not table]
    chosen = json if json_ else form or (forms(ending) if ending in files else None)
    if output is not None and chosen in (None, table):
        names = f"{', '.join(files[:-1])} or {files[-1]}"
        raise typer.BadParameter(f"its ending does not say the format: add --format {names}", param_hint="--output")
    return chosen or table
