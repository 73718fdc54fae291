"""``mesm train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mesm_cli import options, render

if TYPE_CHECKING:
    from mesm_core.build import Paths
    from mesm_core.config.schema import Config
    from mesm_core.training.checkpoint import Checkpoint
    from mesm_core.training.events import EpochDone
    from mesm_core.training.run import Run

LOSSES = {"loss": "loss", "loss_span": "span", "loss_giou": "giou", "loss_label": "label",
          "loss_saliency": "saliency", "loss_rec_fw": "rec_fw", "loss_rec_ss": "rec_ss"}  # fmt: skip


Name = Annotated[
    str, typer.Option("--name", help="The run is kept in RUNS/DATASET-NAME.", rich_help_panel=options.OUTPUT)
]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder of the runs.", rich_help_panel=options.OUTPUT)]
Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        help="Go on with this run's folder, with its settings.",
        show_default=False,
        rich_help_panel=options.OUTPUT,
    ),
]
Init = Annotated[
    Path | None,
    typer.Option(
        "--init",
        help="Start from the weights of a checkpoint, ours or a published one; without --dataset and --config "
        "with its settings too.",
        show_default=False,
        rich_help_panel=options.SETTINGS,
    ),
]


def train(
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    annotations: options.AnnotationsDir = None,
    features: options.Features = None,
    glove: options.Glove = None,
    clip: options.Clip = None,
    skip_missing: options.SkipMissing = False,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    device: options.Device = "auto",
    name: Name = "default",
    runs_dir: RunsDir = Path("runs"),
    resume: Resume = None,
    init: Init = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Train a model and keep the best checkpoint.

    The data folder has the published layout, e.g. data/TACoS/annotations/train.json, data/TACoS/c3d.hdf5 and
    data/glove.6B.300d.txt; --annotations, --features and --glove point elsewhere. The best checkpoint is chosen
    on the validation split (--set train.select_on=paper chooses on the paper's, a test split).

    Example: mesm train --dataset tacos --features c3d.hdf5 --set train.epochs=50
    """  # fmt: skip
    from mesm_core.build import build_device, data_paths
    from mesm_core.errors import ConfigError
    from mesm_core.inference.scoring import checkpoint_paths
    from mesm_core.official.checkpoint import load_any_checkpoint
    from mesm_core.training.run import LAST, Run, prepare_directory, run_directory

    where, start = build_device(device), None
    if resume is not None:
        if dataset or config or overwrite or init:
            raise ConfigError(
                "--resume takes its settings from the run: leave out --dataset, --config, --init and --overwrite."
            )
        directory, settings, recorded = _resumed(resume, set_ or [])
        paths = data_paths(
            settings,
            Path(),
            annotations=annotations or recorded.annotations,
            features=features or recorded.features,
            text=glove or clip or recorded.text,
        )
    else:
        start = None if init is None else load_any_checkpoint(init)
        settings = _settings(start, dataset, config, set_ or [])
        directory = run_directory(runs_dir, settings.dataset.name, name)
        given: dict[str, Any] = {"annotations": annotations, "features": features or (), "text": glove or clip}
        if start is None or dataset or config:
            paths = data_paths(settings, options.data_root(data_dir), **given)
        else:
            paths = checkpoint_paths(start, settings, data_dir, **given)
        if directory.exists() and not overwrite:
            prepare_directory(directory, overwrite=False)
    run = Run(
        settings, paths, directory, device=where, skip_missing=skip_missing, resume=resume is not None, init=start
    )
    if resume is None:
        prepare_directory(directory, overwrite=overwrite)
    try:
        result = _follow(run, human=render.note if json_ else render.say)
    except KeyboardInterrupt:
        saved = (directory / LAST).is_file()
        after = f"go on with: mesm train --resume {directory}" if saved else "no epoch was done, so nothing is saved"
        render.note(f"Interrupted; {after}")
        raise
    if json_:
        render.data(result)


def _settings(start: Checkpoint | None, dataset: str | None, config: Path | None, overrides: list[str]) -> Config:
    """Return a new run's settings: those of the checkpoint it starts from where no others are named."""
    from mesm_core.config.load import Layer, load_config, resolve, set_layer

    if start is None or dataset or config:
        return load_config(dataset, file=config, overrides=overrides)
    return resolve([Layer("--init", start.config), set_layer(overrides)])


def _resumed(directory: Path, overrides: list[str]) -> tuple[Path, Config, Paths]:
    """Return a run's folder, its settings with ``overrides`` on top, and where its data lay."""
    from mesm_core.build import Paths
    from mesm_core.config.load import Layer, resolve, set_layer
    from mesm_core.errors import CheckpointError
    from mesm_core.training.checkpoint import load_checkpoint
    from mesm_core.training.run import LAST

    folder = directory.parent if directory.name == LAST else directory
    if folder.is_dir() and not (folder / LAST).is_file():
        raise CheckpointError(
            f"{folder} has no {LAST}: nothing of a run was saved there, or it was stopped in its first epoch.",
            hint="Start again, with --overwrite.",
        )
    checkpoint = load_checkpoint(folder / LAST)
    settings = resolve([Layer(str(folder / LAST), checkpoint.config), set_layer(overrides)])
    recorded = checkpoint.paths
    paths = Paths(Path(recorded["annotations"]), tuple(map(Path, recorded["features"])), Path(recorded["text"]))
    return folder, settings, paths


def _follow(run: Run, *, human: Any) -> dict[str, Any]:
    """Show a run's events as they come and return its result."""
    from mesm_core.errors import listing
    from mesm_core.training.events import Busy, EpochDone, Finished, Started, Warned
    from mesm_core.training.loop import Step

    result: dict[str, Any] = {"run": str(run.directory)}
    with render.training_progress() as display:
        for event in run.train():
            if isinstance(event, Started):
                if event.skipped:
                    render.warn(f"{len(event.skipped)} videos have no features and are left out")
                for split, repairs in event.repairs.items():
                    made = ", ".join(f"{count} {what}" for what, count in repairs.items())
                    human(f"[dim]Annotations of {split} repaired: {made}[/]")
                human(
                    f"Training on {event.queries} queries in {event.videos} videos: {event.parameters:,} parameters "
                    f"on {run.device}, {event.epochs} epochs, chosen on {', '.join(run.eval_data)}"
                )
                if event.fresh:
                    render.warn(
                        f"{len(event.fresh)} weights are not the checkpoint's but new: {listing(event.fresh, limit=3)}"
                    )
                if event.first_epoch > 1:
                    human(f"Going on after epoch {event.first_epoch - 1}")
            elif isinstance(event, Step):
                display.step(event, epochs=run.config.train.epochs)
            elif isinstance(event, Warned):
                render.warn(event.message)
            elif isinstance(event, Busy):
                display.busy(event.what, event.done, event.total)
            elif isinstance(event, EpochDone):
                human(_epoch_line(event, run.config.train.epochs))
            elif isinstance(event, Finished):
                result |= {"best_epoch": event.best_epoch, "best_score": event.best_score}
                result["stopped_early"] = event.stopped_early
                if event.stopped_early:
                    human(f"Stopped early: no better score in {run.config.train.patience} evaluations")
    if result.get("best_epoch") is not None:
        result["best"] = str(run.directory / "best.pt")
        human(f"Best: epoch {result['best_epoch']}, {run.config.eval.select} {result['best_score']:.2f}")
        human(f"Checkpoint: {result['best']}")
    return result


def _epoch_line(event: EpochDone, epochs: int) -> str:
    record = event.record
    parts = [f"[bold]{record['epoch']:>4}/{epochs}[/]"]
    if record["losses"]:
        # Every loss where there is room for it, the total where there is not; metrics.jsonl has them all.
        shown = LOSSES if (render.width() or render.WIDE) >= render.WIDE else {"loss": "loss"}
        losses = [f"{short} {record['losses'][key]:.3g}" for key, short in shown.items() if key in record["losses"]]
        parts.append(" ".join(losses) + f"  {record['queries_per_s']:.0f} q/s")
    for split, brief in record.get("eval", {}).items():
        parts.append(f"[cyan]{split}[/] mIoU {brief['MR-full-mIoU']:.2f} R1@0.5 {brief['MR-full-R1@0.5']:.2f}")
    return "  ".join(parts) + ("  [green]best[/]" if event.best else "")
