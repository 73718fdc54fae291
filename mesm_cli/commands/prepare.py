"""``mesm prepare``: everything before training."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mesm_cli import options, render

app = typer.Typer(help="Turn features and annotations into what training reads.", no_args_is_help=True)


JSON_LINES = "jsonl"


class Kind(StrEnum):
    """Which count files to write."""

    GLOVE = "glove"
    CLIP = "clip"
    BOTH = "both"


class Dtype(StrEnum):
    """Numbers that features are kept in."""

    FLOAT16 = "float16"
    FLOAT32 = "float32"


@app.command("npy2hdf5")
def npy2hdf5(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE... OUT", help="Folders, files or quoted patterns; last, the HDF5 file."),
    ],
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            help="Array to take from .npz files. Default: features, or the only one.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option("--dtype", help="Convert to this dtype. Default: as stored.", show_default=False),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            "--fps",
            min=1e-6,
            help="Feature frames a second; kept with each video, so that predict knows its duration.",
            show_default=False,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Join .npy or .npz features, one file a video, into one HDF5 file.

    Example: mesm prepare npy2hdf5 features/ data/TACoS/c3d.hdf5
    """  # fmt: skip
    from mesm_core.data import convert

    if len(sources) < 2:
        raise typer.BadParameter(
            "give at least one source, and the HDF5 file to write last", param_hint="SOURCE... OUT"
        )
    out = Path(sources[-1])
    files = convert.find_sources(sources[:-1])
    total = sum(file.stat().st_size for file in files)
    moved = 0
    with render.progress("Converting", len(files), unit="videos") as advance:

        def step(path: Path, size: int) -> None:
            nonlocal moved
            moved += size
            advance(1, f"{moved / 1e6:.0f} of {total / 1e6:.0f} MB")

        report = convert.npy_to_hdf5(files, out, key=key, dtype=dtype, fps=fps, overwrite=overwrite, progress=step)
    if json_:
        render.data(
            {
                "out": str(report.out),
                "videos": report.videos,
                "frames": report.frames,
                "bytes": report.bytes,
                "dims": sorted(report.dims),
                "bad": [{"file": str(path), "reason": reason} for path, reason in report.bad],
            }
        )
    else:
        dims = ", ".join(map(str, sorted(report.dims)))
        render.say(f"{out}: {report.videos} videos, {report.frames} frames, width {dims}, {report.bytes / 1e6:.1f} MB")
    if len(report.dims) > 1:
        render.warn(f"the videos have different widths ({dims}); training needs one")
    if report.bad:
        from mesm_core.errors import FeatureError, listing

        reasons = "\n".join(f"  {path}: {reason}" for path, reason in report.bad)
        raise FeatureError(
            f"{len(report.bad)} of {len(files)} files were left out:\n{reasons}",
            hint=f"The other {report.videos} are in {out}: {listing([out.name])}.",
        )


@app.command("count-tokens")
def count_tokens(
    dataset: options.Dataset = None,
    data_dir: options.DataDir = None,
    annotations: options.AnnotationsDir = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to write to. Default: the annotations' folder.", show_default=False),
    ] = None,
    kind: Annotated[Kind, typer.Option("--kind", help="Which count files to write.")] = Kind.BOTH,
    split: Annotated[
        list[str] | None,
        typer.Option(
            "--split", help="Split to count; repeatable. Default: train and the evaluation split.", show_default=False
        ),
    ] = None,
    max_words: Annotated[
        int | None,
        typer.Option(
            "--max-words",
            min=3,
            help="Cut CLIP sentences to two tokens less. Default: the dataset's.",
            show_default=False,
        ),
    ] = None,
    config: options.ConfigFile = None,
    set_: options.Set = None,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Count the words of a dataset's sentences: the vocabulary of masked-word reconstruction.

    Writes GloVe_tokenized_count.txt and CLIP_tokenized_count.txt.

    Example: mesm count-tokens --dataset tacos
    """
    from mesm_core.config.load import layers, resolve
    from mesm_core.data.counting import count_dataset

    settings = resolve(layers(dataset, file=config, overrides=set_ or [])).dataset
    folder = annotations or options.data_root(data_dir) / settings.annotations
    kinds = [Kind.GLOVE, Kind.CLIP] if kind is Kind.BOTH else [kind]
    own = [settings.train, *settings.eval] if settings.name == JSON_LINES else []
    with render.progress("Counting", None, unit="sentences") as advance:
        written = count_dataset(
            settings.name,
            folder,
            out=out or folder,
            kinds=[str(k) for k in kinds],
            max_words=max_words or settings.max_words,
            overwrite=overwrite,
            splits=split or own,
            progress=lambda count: advance(count, ""),
        )
    if json_:
        render.data([{"file": str(w.path), "rows": w.rows, "tokens": w.tokens, "changed": w.changed} for w in written])
        return
    for item in written:
        state = "" if item.changed else " (up to date)"
        if item.link is not None:
            state += f" -> {item.link}"
        render.say(f"{item.path}: {item.rows} different of {item.tokens} tokens{state}")
