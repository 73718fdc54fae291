"""``mesm train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mesm_cli import completion, options
from mesm_cli.commands import own_videos

Name = Annotated[
    str,
    typer.Option(
        "--name", help="Name of the run. Its folder is RUNS_DIR/DATASET-NAME.", rich_help_panel=options.OUTPUT
    ),
]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder of the runs.", rich_help_panel=options.OUTPUT)]
Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        help="Continue the run or family in this folder, with its settings.",
        autocompletion=completion.runs,
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]
Init = Annotated[
    Path | None,
    typer.Option(
        "--init",
        help="Start from the weights of a checkpoint of mesm or of the published code, and also from its settings if "
        "neither --dataset nor --config is given.",
        autocompletion=completion.checkpoints,
        show_default=False,
        rich_help_panel=options.SETTINGS,
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="With --resume: continue although the settings differ. With --like: train although the data differ.",
        rich_help_panel=options.OUTPUT,
    ),
]
Like = Annotated[
    Path | None,
    typer.Option(
        "--like",
        help="Repeat the run or family in this folder: its settings, seed and data, which are compared by hash.",
        autocompletion=completion.runs,
        show_default=False,
        rich_help_panel=options.SETTINGS,
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        "--seeds",
        metavar="COUNT|LIST",
        help="Train a family of runs that differ in their seed. COUNT: this many, from train.seed on, e.g. 3. LIST: "
        "these seeds, e.g. 2019,7,8.",
        show_default=False,
    ),
]
Parallel = Annotated[
    int | None,
    typer.Option(
        "--parallel",
        min=1,
        max=64,
        help="With --seeds: train this many runs at once, which share the threads and the GPUs. Default: 1.",
        show_default=False,
    ),
]
Member = Annotated[int | None, typer.Option("--member", hidden=True, help="Train this seed of a family only.")]
Gpus = Annotated[
    int | None,
    typer.Option("--gpus", min=1, help="Train on this many GPUs, with one process for each.", show_default=False),
]


def train(
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    annotations: options.AnnotationsDir = None,
    features: options.Features = None,
    videos: own_videos.Videos = None,
    backbone: own_videos.Backbones = None,
    glove: options.Glove = None,
    clip: options.Clip = None,
    skip_missing: options.SkipMissing = False,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    precision: options.Precision = None,
    compile_: options.Compile = False,
    seeds: Seeds = None,
    parallel: Parallel = None,
    device: options.Device = "auto",
    gpus: Gpus = None,
    name: Name = "default",
    runs_dir: RunsDir = Path("runs"),
    resume: Resume = None,
    like: Like = None,
    force: Force = False,
    init: Init = None,
    member: Member = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Train a model and keep the best checkpoint.

    The data folder has the published layout, e.g. data/TACoS/annotations/train.json, data/TACoS/c3d.hdf5 and
    data/glove.6B.300d.txt. Use --annotations, --features and --glove for files elsewhere. The best checkpoint is
    selected on the validation split; --set train.select_on=paper selects it on the split that the paper uses, which is
    a test split for most datasets.

    Ctrl-C, a TERM signal or a closed terminal stops the run after the current step and saves its state. Continue with
    --resume.

    Examples:

      mesm train --dataset tacos --features c3d.hdf5 --set train.epochs=50

      mesm train --dataset tacos --name three --seeds 3
    """
    from mesm_cli.commands.training_plan import TrainOptions, make_plan
    from mesm_cli.commands.training_runs import carry_out
    from mesm_core.training.start import Given

    overrides = [*(set_ or []), *([f"train.precision={precision}"] if precision else [])]
    overrides += ["train.compile=true"] if compile_ else []
    asked = TrainOptions(
        dataset=dataset,
        config=config,
        overrides=overrides,
        given=Given(data_dir, annotations, features or (), glove or clip, videos, backbone or ()),
        name=name,
        runs_dir=runs_dir,
        seeds=seeds,
        parallel=parallel,
        resume=resume,
        like=like,
        init=init,
        force=force,
        member=member,
        skip_missing=skip_missing,
        overwrite=overwrite,
        device=device,
        gpus=gpus,
        json=json_,
    )
    code = carry_out(make_plan(asked), asked)
    if code:
        raise typer.Exit(code)
