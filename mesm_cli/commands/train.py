"""``mesm train``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mesm_cli import completion, options, render
from mesm_cli.commands import own_videos

if TYPE_CHECKING:
    from mesm_core.build import Paths
    from mesm_core.checkpoint import Checkpoint
    from mesm_core.config.schema import Config
    from mesm_core.training.start import Given

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
        help="Continue the run in this folder, with its settings.",
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
        "--force", help="With --resume: continue although the settings differ.", rich_help_panel=options.OUTPUT
    ),
]
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
    device: options.Device = "auto",
    gpus: Gpus = None,
    name: Name = "default",
    runs_dir: RunsDir = Path("runs"),
    resume: Resume = None,
    force: Force = False,
    init: Init = None,
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

    Example:

      mesm train --dataset tacos --features c3d.hdf5 --set train.epochs=50
    """
    from mesm_core.build import data_files
    from mesm_core.errors import ConfigError
    from mesm_core.official.checkpoint import checkpoint_files, load_any_checkpoint
    from mesm_core.places import refuse_inputs
    from mesm_core.training.directory import prepare_directory, run_directory, run_files
    from mesm_core.training.start import Given, earlier_run

    overrides = [*(set_ or []), *([f"train.precision={precision}"] if precision else [])]
    overrides += ["train.compile=true"] if compile_ else []
    given = Given(data_dir, annotations, features or (), glove or clip, videos, backbone or ())
    start = None if init is None else load_any_checkpoint(init)
    for warning in () if start is None else start.warnings:
        render.warn(warning)
    if resume is not None:
        if init or overwrite:
            raise ConfigError("--resume continues from the weights of the run. Remove --init and --overwrite.")
        directory, settings, paths = earlier_run(resume, dataset, config, overrides, given, force=force)
    else:
        settings, paths, given = _new_run(dataset, config, overrides, given, start)
        directory = run_directory(runs_dir, settings.dataset.name, name)
        if directory.exists() and not overwrite:
            prepare_directory(directory, overwrite=False)
        files = data_files(settings, paths, (settings.dataset.train, *settings.dataset.eval))
        refuse_inputs(run_files(directory), [*files, config, *([] if init is None else checkpoint_files(init))])
    if gpus is not None and gpus > 1:
        raise typer.Exit(_launch(gpus, settings, paths, given.backbones, device=device, skip_missing=skip_missing))
    code = _carry_out(
        settings,
        paths,
        directory,
        device=device,
        skip_missing=skip_missing,
        resume=resume is not None,
        init=start,
        overwrite=overwrite,
        json_=json_,
    )
    if code:
        raise typer.Exit(code)


def _new_run(
    dataset: str | None, file: Path | None, overrides: list[str], given: Given, init: Checkpoint | None
) -> tuple[Config, Paths, Given]:
    """Return the settings and paths of a new run. On a terminal, ask for backbones if they are needed but not set."""
    from mesm_core.training.start import new_run

    settings, paths = new_run(dataset, file, overrides, given, init=init)
    if settings.dataset.videos and not settings.dataset.backbones:
        asked = own_videos.ask_backbones()
        if asked:
            given = replace(given, backbones=asked)
            settings, paths = new_run(dataset, file, overrides, given, init=init)
    return settings, paths, given


def _prepare(settings: Config, paths: Paths, *, device: str, skip_missing: bool) -> None:
    """Check that all data are there, and extract missing features of the user's videos."""
    from mesm_core.build.ready import require_ready

    if settings.dataset.videos:
        require_ready(settings, paths, device=device, skip_missing=skip_missing, features=False)
        splits = (settings.dataset.train, *settings.select_splits)
        own_videos.extract_missing(settings, paths, splits, device=device, skip_missing=skip_missing)
    require_ready(settings, paths, device=device, skip_missing=skip_missing)


def _carry_out(
    settings: Config,
    paths: Paths,
    directory: Path,
    *,
    device: str,
    skip_missing: bool,
    resume: bool,
    init: Checkpoint | None,
    overwrite: bool,
    json_: bool,
) -> int:
    """Train, alone or as one of the processes that torchrun started, and return the exit code."""
    from mesm_cli.commands.training_display import display_training
    from mesm_core.build import build_device
    from mesm_core.processes import join_team, leave_team
    from mesm_core.training.directory import claimed, prepare_directory
    from mesm_core.training.run import Run

    _prepare(settings, paths, device=device, skip_missing=skip_missing)
    team, where = join_team(build_device(device))
    try:
        run = Run.open(
            settings, paths, directory, device=where, skip_missing=skip_missing, resume=resume, init=init, team=team
        )
        with claimed(directory) if team.is_main else nullcontext():
            if team.is_main and not resume:
                prepare_directory(directory, overwrite=overwrite)
            say = render.note if json_ else render.say
            result, code = display_training(run, human=say if team.is_main else lambda _: None)
    finally:
        leave_team()
    if json_ and team.is_main:
        render.data(result)
    return code


def _launch(
    gpus: int, settings: Config, paths: Paths, backbones: Sequence[str], *, device: str, skip_missing: bool
) -> int:
    """Run this command in one process for each GPU, with torch's elastic launcher, and return the exit code.

    This process extracts missing features first.

    Raises:
        DeviceError: the machine has fewer GPUs.
    """
    from mesm_core.processes import launch, require_gpus

    require_gpus(gpus)
    words = sys.argv[1:]
    place = next(number for number, word in enumerate(words) if word.startswith("--gpus"))
    after = place + (1 if "=" in words[place] else 2)
    words = [*words[:place], *words[after:]]
    if settings.dataset.videos:
        _prepare(settings, paths, device=device, skip_missing=skip_missing)
        if backbones and "--backbone" not in " ".join(words):
            words += [word for name in backbones for word in ("--backbone", name)]
    return launch("mesm_cli.app", words, processes=gpus)
