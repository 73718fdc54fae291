"""Options of ``mesm index``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mesm_cli.commands.extract_options import Interpolation
from mesm_cli.commands.prepare_features import Dtype

SETTINGS = "Settings of a new index"

Folder = Annotated[Path, typer.Argument(metavar="INDEX", help="Folder of the index.")]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Videos: files, folders, quoted patterns or .txt lists; or feature files (.hdf5) of `mesm extract`.",
    ),
]
Backbones = Annotated[
    list[str] | None,
    typer.Option(
        "--backbone",
        help="Backbone whose features are kept. Repeatable. clip-b32 (default) is always needed: only its features can "
        "be compared with sentences. Others are for models that need them.",
        show_default=False,
        rich_help_panel=SETTINGS,
    ),
]
ClipLen = Annotated[
    str | None,
    typer.Option(
        "--clip-len",
        metavar="SECONDS",
        help="Seconds that each row of features covers. Default: 1.",
        show_default=False,
        rich_help_panel=SETTINGS,
    ),
]
InterpolationOption = Annotated[
    Interpolation | None,
    typer.Option(
        "--interpolation",
        help="Interpolation of the scaler. Default: bilinear.",
        show_default=False,
        rich_help_panel=SETTINGS,
    ),
]
DtypeOption = Annotated[
    Dtype | None,
    typer.Option(
        "--dtype",
        help="Data type of the kept features. Default: float16.",
        show_default=False,
        rich_help_panel=SETTINGS,
    ),
]
Segment = Annotated[
    float | None,
    typer.Option(
        "--segment",
        metavar="SECONDS",
        min=0.1,
        max=86_400,
        help="Length of a segment. Default: 8.",
        show_default=False,
        rich_help_panel=SETTINGS,
    ),
]
Overlap = Annotated[
    float | None,
    typer.Option(
        "--overlap",
        min=0,
        max=0.95,
        help="Share of a segment that the next one repeats. Default: 0.5.",
        show_default=False,
        rich_help_panel=SETTINGS,
    ),
]
Engine = Annotated[
    str | None,
    typer.Option("--engine", help="exact (default) or milvus.", show_default=False, rich_help_panel=SETTINGS),
]
Uri = Annotated[
    str | None,
    typer.Option(
        "--uri",
        help="Where milvus keeps its data: a file, or the address of a server. Default: a file in the index.",
        show_default=False,
        rich_help_panel=SETTINGS,
    ),
]
Which = Annotated[
    list[str] | None,
    typer.Argument(metavar="VIDEO...", help="Ids, names, paths, folders, or quoted patterns.", show_default=False),
]
Missing = Annotated[bool, typer.Option("--missing", help="Remove the videos whose files were deleted.")]
MovedEngine = Annotated[str, typer.Argument(metavar="ENGINE", help="exact or milvus.")]
