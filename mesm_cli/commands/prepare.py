"""``mesm prepare``: prepare features, text and annotations for training."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mesm_cli import options, render
from mesm_cli.commands import prepare_data, prepare_features, prepare_text

app = typer.Typer(help="Prepare features, text and annotations for training, and check them.", no_args_is_help=True)
app.command("npy2hdf5")(prepare_features.npy2hdf5)
app.command("hdf52npy")(prepare_features.hdf52npy)
app.command("merge")(prepare_features.merge)
app.command("glove")(prepare_text.glove)
app.command("clip-text")(prepare_text.clip_text)
app.command("convert")(prepare_data.convert)
app.command("check")(prepare_data.check)


class Kind(StrEnum):
    """Which count files to write."""

    GLOVE = "glove"
    CLIP = "clip"
    BOTH = "both"


@app.command("count-tokens")
def count_tokens(
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    annotations: options.AnnotationsDir = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Output folder. Default: the folder of the annotations.", show_default=False),
    ] = None,
    kind: Annotated[Kind, typer.Option("--kind", help="Which count files to write.")] = Kind.BOTH,
    split: Annotated[
        list[str] | None,
        typer.Option(
            "--split", help="Split to count. Repeatable. Default: train and the evaluation split.", show_default=False
        ),
    ] = None,
    max_words: Annotated[
        int | None,
        typer.Option(
            "--max-words",
            min=3,
            help="CLIP only: count the first MAX_WORDS - 2 tokens of a sentence. A model with this dataset.max_words "
            "reads no more, beside the start and end tokens. Default: the dataset's.",
            show_default=False,
        ),
    ] = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Count the words of a dataset's sentences. The counts define the vocabulary of masked-word reconstruction.

    Writes GloVe_tokenized_count.txt and CLIP_tokenized_count.txt.

    Example:

      mesm count-tokens --dataset tacos
    """
    from mesm_core.config.load import load_config
    from mesm_core.data.count_dataset import count_dataset, count_inputs, count_outputs
    from mesm_core.data.splits import counted_splits
    from mesm_core.places import refuse_inputs

    settings = load_config(dataset, file=config, overrides=set_ or []).dataset
    folder = annotations or options.data_root(data_dir) / settings.annotations
    kinds = [Kind.GLOVE, Kind.CLIP] if kind is Kind.BOTH else [kind]
    names = [str(k) for k in kinds]
    splits = counted_splits(settings, split or ())
    refuse_inputs(count_outputs(out or folder, names), [config, *count_inputs(settings.name, folder, splits)])
    with render.progress("Counting", None, unit="sentences") as advance:
        written = count_dataset(
            settings.name,
            folder,
            out=out or folder,
            kinds=names,
            max_words=max_words or settings.max_words,
            overwrite=overwrite,
            splits=splits,
            progress=lambda count: advance(count, ""),
        )
    if json_:
        render.data([{"file": str(w.path), "rows": w.rows, "tokens": w.tokens, "changed": w.changed} for w in written])
        return
    for item in written:
        state = "" if item.changed else " (up to date)"
        if item.link is not None:
            state += f" -> {item.link}"
        render.say(f"{item.path}: {item.tokens} tokens, {item.rows} distinct{state}")
