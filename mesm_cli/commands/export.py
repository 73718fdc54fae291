"""``mesm export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mesm_cli import completion, options, render


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CKPT", help="best.pt of a run, or a published .ckpt.", autocompletion=completion.checkpoints
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder; with --official a .ckpt file.")],
    official: Annotated[
        bool,
        typer.Option("--official", help="Write the format of the published implementation, with opt.json beside it."),
    ] = False,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Export a checkpoint as safetensors and JSON, or in the format of the published implementation.

    OUT receives model.safetensors, config.json and checkpoint.json. Every mesm command that reads a checkpoint also
    reads such a folder. The published format does not contain word vectors; the published code reads them from the
    GloVe or CLIP files.

    Examples:

      mesm export runs/tacos-default/best.pt exported

      mesm export runs/tacos-default/best.pt model_best.ckpt --official
    """
    from mesm_core.checkpoint import export_files, write_export
    from mesm_core.official.checkpoint import checkpoint_files, load_any_checkpoint
    from mesm_core.official.export import export_official, official_files, settings_lost
    from mesm_core.places import refuse_inputs

    refuse_inputs(official_files(out) if official else export_files(out), checkpoint_files(checkpoint))
    loaded = load_any_checkpoint(checkpoint)
    write = export_official if official else write_export
    lost = settings_lost(loaded) if official else []
    files = write(loaded, out, overwrite=overwrite)
    for warning in loaded.warnings:
        render.warn(warning)
    if lost:
        render.warn(f"The published format has no flags for these settings: {', '.join(lost)}")
    if json_:
        render.data({"files": [str(path) for path in files]})
        return
    for path in files:
        render.say(f"Wrote {path}")
