"""``mesm prepare convert`` and ``mesm prepare check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mesm_cli import options, render

if TYPE_CHECKING:
    from mesm_core.build.paths import GivenPaths


def convert(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="JSON-lines file to write (.jsonl).")],
    split: Annotated[str, typer.Option("--split", help="Split to convert.")],
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    annotations: options.AnnotationsDir = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse annotations that need repairs.")] = False,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Convert a split of a dataset to JSON lines in Moment-DETR's format, with one query per line.

    Example:

      mesm prepare convert --dataset tacos --split val tacos-val.jsonl
    """
    from mesm_core.config.load import load_config
    from mesm_core.data.count_dataset import dataset_files
    from mesm_core.data.readers import annotation_files, read_split
    from mesm_core.data.readers.json_lines import write_lines
    from mesm_core.data.splits import named_split
    from mesm_core.errors import DataError, count
    from mesm_core.places import refuse_existing, refuse_inputs

    refuse_existing(out, overwrite=overwrite)
    settings = load_config(dataset, file=config, overrides=set_ or []).dataset
    folder = annotations or options.data_root(data_dir) / settings.annotations
    named = named_split(settings, split)
    # Other files of the dataset are not read, but they must not be replaced either.
    inputs = [*annotation_files(settings.name, folder, [named]), *dataset_files(settings, folder)]
    refuse_inputs([out], [config, *inputs])
    read = read_split(settings.name, folder, named)
    if strict and read.repairs:
        made = ", ".join(f"{count} {what}" for what, count in read.repairs.items())
        raise DataError(
            f"The {split} split has annotations outside their videos: {made}.", hint="Remove --strict to repair them."
        )
    write_lines(out, read.queries, overwrite=overwrite)
    if json_:
        render.data({"out": str(out), "queries": len(read.queries), "repairs": dict(read.repairs)})
        return
    render.say(f"{out}: {count(len(read.queries), 'query')}")
    for repair, times in read.repairs.items():
        render.say(f"  {times} {repair}")


def check(
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    annotations: options.AnnotationsDir = None,
    features: options.Features = None,
    glove: options.Glove = None,
    clip: options.Clip = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            help="Check the data for this trained model, with its settings. This also compares the features with those "
            "that it was trained on.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Treat warnings and repaired annotations as errors.")
    ] = False,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Check that all data of a run exist and fit together. The exit code is 2 if a run could not start.

    The annotations are checked, the features (missing videos, widths, the frame rate compared with duration and
    clip_len, and how they were extracted), and the files of the text encoder with their coverage of the vocabulary.

    Examples:

      mesm prepare check --dataset charades

      mesm prepare check --checkpoint best.pt --features data/mine/clip_image.hdf5
    """
    from mesm_core.build import data_paths
    from mesm_core.build.check import check_data
    from mesm_core.config.load import load_config
    from mesm_core.errors import DataError
    from mesm_core.inference.scoring import settings_of_checkpoint

    given: GivenPaths = {"annotations": annotations, "features": features or (), "text": glove or clip}
    statistics: dict[str, Any] = {}
    if checkpoint is None:
        settings = load_config(dataset, file=config, overrides=set_ or [])
        paths = data_paths(settings, options.data_root(data_dir), **given)
    elif dataset is not None:
        raise typer.BadParameter("the checkpoint contains its settings: remove --dataset", param_hint="--checkpoint")
    else:
        settings, paths, statistics = settings_of_checkpoint(
            checkpoint, root=data_dir, config_file=config, overrides=set_ or [], **given
        )
    with render.progress("Checking", None) as advance:
        findings = check_data(
            settings, paths, strict=strict, progress=lambda count: advance(count, ""), statistics=statistics
        )
    if json_:
        render.data([vars(finding) for finding in findings])
    else:
        render.findings([(f.level, f.subject, f.message) for f in findings])
    failed = [f for f in findings if f.level == "error" or (strict and f.level == "warning")]
    if failed:
        raise DataError(
            f"{len(failed)} of {len(findings)} checks failed: a run could not start, or its results would be wrong."
        )
