"""Options of ``mesm locate``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mesm_cli import completion, options

SHOWN = 5
WHAT = "What is asked"


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
        help="Video files or folders, and sentences in quotes. What is a file, or is named like one, is a video.",
        show_default=False,
    ),
]
Videos = Annotated[
    list[str] | None,
    typer.Option(
        "--video",
        metavar="FILE",
        help="A video, folder, quoted pattern, or .txt list of videos; repeatable.",
        show_default=False,
        rich_help_panel=WHAT,
    ),
]
Query = Annotated[
    list[str] | None,
    typer.Option(
        "--query",
        metavar="TEXT",
        help="A query that would be taken for a video; repeatable.",
        show_default=False,
        rich_help_panel=WHAT,
    ),
]
Queries = Annotated[
    Path | None,
    typer.Option(
        "--queries",
        metavar="FILE",
        help="Queries from a file, one a line: sentences, or JSON with query (and vid, for a query about one of the "
        "videos); - for stdin.",
        show_default=False,
        rich_help_panel=WHAT,
    ),
]
Model = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="CKPT",
        help="A trained model: best.pt of a run, or a published checkpoint. Default: zero-shot, CLIP without training.",
        show_default=False,
        autocompletion=completion.retrievers,
    ),
]
Top = Annotated[int, typer.Option("--top", min=1, help="Moments of each query.")]
ClipLen = Annotated[
    str | None,
    typer.Option(
        "--clip-len",
        metavar="SECONDS",
        help="Zero-shot: seconds a row of features stands for. Default: 1. A model knows its own.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    Form | None,
    typer.Option(
        "--format",
        help="table, json, csv, srt (subtitles of one video) or edl (CMX3600). Default: as OUTPUT ends, else table.",
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
        help="Cut each moment into a file of its own in this folder.",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]
Fast = Annotated[
    bool,
    typer.Option(
        "--fast",
        help="Cut without encoding again: at once, but from the keyframe before the moment on.",
        rich_help_panel=options.OUTPUT,
    ),
]
Page = Annotated[
    Path | None,
    typer.Option(
        "--page",
        metavar="FILE.html",
        help="Write a page with a player, the moments to click on, and the saliency.",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Fetch missing weights without asking.")]
