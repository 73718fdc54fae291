"""Options that several commands share, as annotated types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mesm_cli import completion
from mesm_cli.errors import set_debug

DATA = "Data"
SETTINGS = "Settings"
OUTPUT = "Output"

CheckpointFile = Annotated[
    Path,
    typer.Argument(
        metavar="CKPT",
        help="Checkpoint: best.pt or last.pt of a run, or zero-shot.",
        autocompletion=completion.retrievers,
    ),
]
Independent = Annotated[
    bool,
    typer.Option(
        "--independent",
        help="Answer each query on its own. By default the queries about a video are encoded together, as in training, "
        "so the answer to one can depend on the others.",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="MESM_DATA",
        help="Folder of the datasets (TACoS/, glove.6B.300d.txt …). Default: ./data.",
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
        help="HDF5 file of video features; repeat to join several files, in this order. Default: the dataset's.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Glove = Annotated[
    Path | None,
    typer.Option(
        "--glove",
        help="GloVe text file (plain, .gz or .zip), or glove.pkl for datasets that use it. Default: the dataset's.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
Clip = Annotated[
    Path | None,
    typer.Option(
        "--clip",
        help="Weights of CLIP's text encoder. Default: clip_text_encoder.safetensors in the data folder.",
        show_default=False,
        rich_help_panel=DATA,
    ),
]
SkipMissing = Annotated[
    bool,
    typer.Option("--skip-missing", help="Leave out videos that have no features.", rich_help_panel=DATA),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Name of the dataset's preset, e.g. tacos.",
        show_default=False,
        autocompletion=completion.presets,
    ),
]
ZeroShotDataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="For zero-shot: name of the dataset's preset. A checkpoint contains its own.",
        show_default=False,
        autocompletion=completion.presets,
        rich_help_panel=DATA,
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Read settings from a TOML file or a run's config.json. Paths in it are relative to the file.",
        show_default=False,
        rich_help_panel=SETTINGS,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting, e.g. train.lr=1e-4. Repeatable. `mesm config show` lists all settings.",
        show_default=False,
        autocompletion=completion.settings,
        rich_help_panel=SETTINGS,
    ),
]


def check_nms(value: float | None) -> float | None:
    """Return a threshold of temporal NMS: in (0, 1], or -1 to turn it off. Refuse other values."""
    if value is not None:
        from mesm_core.metrics.nms import check_nms

        check_nms(value)
    return value


Nms = Annotated[
    float,
    typer.Option(
        "--nms",
        help="Drop moments that overlap a better one by more than this, in (0, 1]. -1 keeps all.",
        callback=check_nms,
    ),
]


def check_confidence(value: float | None) -> float | None:
    """Return a minimum confidence in [0, 1]. Refuse other values."""
    if value is not None:
        from mesm_core.confidence.calibration import check_confidence

        check_confidence(value)
    return value


MinConfidence = Annotated[
    float | None,
    typer.Option(
        "--min-confidence",
        metavar="P",
        help="Drop moments with a smaller probability of an IoU of at least 0.5, in [0, 1]. Needs a calibrated "
        "checkpoint: mesm train and mesm calibrate make one.",
        show_default=False,
        callback=check_confidence,
    ),
]


def check_window(value: str) -> str:
    """Return a value of --window: auto, off or a positive number of seconds. Refuse other values."""
    from mesm_core.inference.windows import check_window

    check_window(value)
    return value


Window = Annotated[
    str,
    typer.Option(
        "--window",
        metavar="auto|off|SECONDS",
        help="How to process long videos. SECONDS: in overlapping windows of this length. off: at once, with the "
        "frames averaged or cut to dataset.max_frames, as published. auto: in windows of the median length of the "
        "training videos, if the video is longer than all of them.",
        callback=check_window,
    ),
]
Device = Annotated[
    str,
    typer.Option("--device", help="auto, cpu, cuda or cuda:N. auto uses CUDA if it is available."),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="Precision of matrix products: fp32, tf32 (CUDA only) or bf16. Default: train.precision.",
        show_default=False,
        autocompletion=completion.precisions,
    ),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the model and its losses with torch.compile. Useful on GPUs only.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.", rich_help_panel=OUTPUT)]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON on stdout and everything else on stderr.", rich_help_panel=OUTPUT),
]
Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show the traceback of errors.", callback=set_debug, rich_help_panel=OUTPUT),
]


def text_file(checkpoint: Path, glove: Path | None, clip: Path | None) -> Path | None:
    """Return the file of the text encoder that was given. Refuse word vectors for zero-shot, which uses CLIP."""
    if glove is not None:
        from mesm_core.inference.zero_shot_files import names_zero_shot

        if names_zero_shot(checkpoint):
            raise typer.BadParameter("zero-shot reads CLIP's text weights: give --clip", param_hint="--glove")
    return glove or clip


def data_root(data_dir: Path | None) -> Path:
    """Return the data folder: the option or $MESM_DATA, else ./data."""
    from mesm_core.config.load import DATA_ROOT

    return data_dir or DATA_ROOT
