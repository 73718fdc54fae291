"""Options of ``mesm extract``, some of which other commands share."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mesm_cli import options
from mesm_cli.commands.prepare_features import Dtype

SPEED = "Speed"


class Interpolation(StrEnum):
    """Interpolation of the frame scaler."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


class Precision(StrEnum):
    """Precision of the networks."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE... OUTDIR",
        help="Videos: files, folders, quoted patterns or .txt lists. The output folder comes last.",
    ),
]
Backbones = Annotated[
    list[str] | None,
    typer.Option(
        "--backbone",
        help="clip-b32, slowfast-r50, slowfast-r50-pytorchvideo or pixels. Repeatable.",
        show_default=False,
    ),
]
ClipLen = Annotated[
    str, typer.Option("--clip-len", metavar="SECONDS", help="Seconds that each row of features covers: 2, 1 or 1/3.")
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="NAME=FILE",
        help="Weights of a backbone. Repeatable. Default: the file that `mesm weights pull` downloaded.",
        show_default=False,
    ),
]
DtypeOption = Annotated[
    Dtype, typer.Option("--dtype", help="Data type of the stored features.", rich_help_panel=options.OUTPUT)
]
InterpolationOption = Annotated[
    Interpolation,
    typer.Option(
        "--interpolation", help="Interpolation of the scaler: bilinear, as for the published features, or bicubic."
    ),
]
PrecisionOption = Annotated[
    Precision | None,
    typer.Option(
        "--precision",
        help="Precision of the networks. Default: fp16 on CUDA, fp32 on the CPU.",
        show_default=False,
        rich_help_panel=SPEED,
    ),
]
BatchSize = Annotated[
    int, typer.Option("--batch-size", min=1, max=4096, help="Rows in a batch.", rich_help_panel=SPEED)
]
Decoders = Annotated[
    int,
    typer.Option(
        "--decoders", min=1, max=256, help="Number of decoder threads; each decodes one video.", rich_help_panel=SPEED
    ),
]
Processes = Annotated[
    int,
    typer.Option(
        "--processes", min=1, max=256, help="Number of processes; on CUDA each uses one GPU.", rich_help_panel=SPEED
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="auto|ADDRESS",
        help="Extract on the nodes of a Ray cluster: HOST:PORT of its head, ray://HOST:PORT, or auto. auto takes "
        "$RAY_ADDRESS, else a cluster that runs on this machine, else starts one on it.",
        show_default=False,
        rich_help_panel=SPEED,
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Process only the I-th of N shares of the videos. slurm/N takes I from SLURM_ARRAY_TASK_ID. "
        "`mesm prepare merge` merges the shares.",
        show_default=False,
        rich_help_panel=SPEED,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue an interrupted extraction, or add videos. Existing features are recognised by the content of "
        "the video file and the settings.",
        rich_help_panel=options.OUTPUT,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Estimate hours of video, rows, GB and time. Write nothing.")]
Compare = Annotated[
    Path | None,
    typer.Option(
        "--compare",
        metavar="PUBLISHED.hdf5",
        help="Report the cosine similarity between the features in OUTDIR and these, by video and row. Without SOURCE "
        "nothing is extracted.",
        show_default=False,
    ),
]


def refuse_with_ray(ray: str | None, *, processes: int, shard: str | None = None, dry_run: bool = False) -> None:
    """Refuse options that do not go with --ray."""
    from mesm_core.errors import ConfigError

    reasons = {
        "--processes": "the cluster decides how many workers there are" if processes != 1 else "",
        "--shard": "the nodes share all videos" if shard is not None else "",
        "--dry-run": "it measures this machine, not the cluster" if dry_run else "",
    }
    for option, reason in reasons.items():
        if ray is not None and reason:
            raise ConfigError(f"--ray and {option}: {reason}.", hint=f"Remove {option}, or --ray.")


def weights_by_name(words: Iterable[str]) -> dict[str, Path]:
    """Return NAME=FILE words as a dictionary."""
    found = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not (name and equals and path):
            raise typer.BadParameter(f"{word!r} is not NAME=FILE, e.g. clip-b32=ViT-B-32.pt", param_hint="--weights")
        found[name] = Path(path)
    return found
