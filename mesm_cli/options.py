"""Options that commands share, as annotated types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mesm_cli import completion
from mesm_cli.errors import set_debug

DATA = "Where the data lies"
SETTINGS = "Settings"
OUTPUT = "Output"

CheckpointFile = Annotated[
    Path,
    typer.Argument(
        metavar="CKPT", help="best.pt or last.pt of a run, or zero-shot.", autocompletion=completion.retrievers
    ),
]
Independent = Annotated[
    bool,
    typer.Option(
        "--independent",
        help="Answer each query as if it were the only one. Else the queries about a video are read together, as in "
        "training, and the answer to one can depend on the others.",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="MESM_DATA",
        help="Folder that holds the datasets (TACoS/, glove.6B.300d.txt …). Default: ./data.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
AnnotationsDir = Annotated[
    Path | None,
    typer.Option(
        "--annotations",
        help="Folder of the annotation files. Default: the dataset's, in the data folder.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Features = Annotated[
    list[Path] | None,
    typer.Option(
        "--features",
        help="HDF5 file of video features; repeat it to join several, in this order. Default: the dataset's.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Glove = Annotated[
    Path | None,
    typer.Option(
        "--glove",
        help="GloVe text file (plain, .gz or .zip), or glove.pkl where the dataset uses one. Default: the dataset's.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Clip = Annotated[
    Path | None,
    typer.Option(
        "--clip",
        help="CLIP text weights, for CLIP text. Default: clip_text_encoder.safetensors in the data folder.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
SkipMissing = Annotated[
    bool,
    typer.Option("--skip-missing", help="Go on without videos that have no features.", rich_help_panel=DATA),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Dataset, by the name of its preset, e.g. tacos.",
        show_default=False,
        autocompletion=completion.presets,
    ),
]
ZeroShotDataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="For zero-shot: the dataset, by the name of its preset. A checkpoint has its own.",
        show_default=False,
        autocompletion=completion.presets,
        rich_help_panel=DATA,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Settings from a TOML file (its paths are relative to it) or a run's config.json.",
        show_default=False,
        rich_help_panel=SETTINGS,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting, e.g. train.lr=1e-4; repeatable. `mesm config show` lists them.",
        show_default=False,
        autocompletion=completion.settings,
        rich_help_panel=SETTINGS,
    ),
]


def check_nms(value: float | None) -> float | None:
    """Return a threshold of temporal NMS that is in (0, 1], or -1 for none; refuse any other."""
    if value is not None:
        from mesm_core.metrics.nms import check_nms

        check_nms(value)
    return value


Nms = Annotated[
    float, typer.Option("--nms", help="Temporal NMS at this overlap, in (0, 1]; -1 for none.", callback=check_nms)
]


def check_window(value: str) -> str:
    """Return a value of --window that is auto, off or a positive number of seconds; refuse any other."""
    from mesm_core.inference.windows import check_window

    check_window(value)
    return value


Window = Annotated[
    str,
    typer.Option(
        "--window",
        metavar="auto|off|SECONDS",
        help="How a long video is seen: in overlapping windows of SECONDS; off: at once, its frames averaged (or cut) "
        "to dataset.max_frames, as published; auto: videos longer than all of training's in windows of the median "
        "training video's length.",
        callback=check_window,
    ),
]
Device = Annotated[
    str,
    typer.Option("--device", help="auto, cpu, cuda or cuda:N; auto takes CUDA where there is one."),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="Numbers of matrix products: fp32, tf32 (CUDA) or bf16. Default: train.precision.",
        show_default=False,
        autocompletion=completion.precisions,
    ),
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the model (torch.compile); for GPUs.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.", rich_help_panel=OUTPUT)]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON on stdout; everything else on stderr.", rich_help_panel=OUTPUT),
]
Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show the traceback of an error.", callback=set_debug, rich_help_panel=OUTPUT),
]


def text_file(checkpoint: Path, glove: Path | None, clip: Path | None) -> Path | None:
    """Return the text encoder's file that was given; refuse word vectors where zero-shot asks for CLIP's weights."""
    if glove is not None:
        from mesm_core.inference.zero_shot_files import names_zero_shot

        if names_zero_shot(checkpoint):
            raise typer.BadParameter("zero-shot reads CLIP's text weights: give --clip", param_hint="--glove")
    return glove or clip


def data_root(data_dir: Path | None) -> Path:
    """Return the data folder: the option or $MESM_DATA, else ./data."""
    from mesm_core.config.load import DATA_ROOT

    return data_dir or DATA_ROOT
