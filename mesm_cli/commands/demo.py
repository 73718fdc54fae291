"""``mesm demo``: the whole pipeline on an invented dataset, through the commands themselves."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from mesm_cli import options, render

SETTINGS = """\
# A small model for a small invented dataset: changes to the tacos preset.

[dataset]
max_frames = 128

[text]
glove = "data/glove.invented.txt"
vocab_size = 20

[model]
video_dim = 48
text_dim = 32
hidden_dim = 64
heads = 4
dim_feedforward = 128
segment_sentence_layers = 2
dropout = 0
input_dropout = 0.1

[train]
batch_size = 4
epochs = {epochs}
lr = 8e-4
eval_every = 4
eval_untrained = true
select_on = "val"

[eval]
batch_size = 20
"""
VIDEOS = {"train": 120, "val": 24, "test": 24}
EPOCHS = 12
SHOWN = ("MR-full-R1@0.3", "MR-full-R1@0.5", "MR-full-R1@0.7", "MR-full-mIoU", "MR-full-mAP")


def demo(
    folder: Annotated[Path, typer.Option("--out", help="Folder to write to.")] = Path("mesm-demo"),
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    debug: options.Debug = False,
) -> None:
    """Train, evaluate and ask on an invented dataset: no files needed, about two minutes.

    Writes features, annotations and word vectors to a folder, and runs on them what you would run on yours.
    """
    from mesm_core.build import build_device
    from mesm_core.errors import OutputError
    from mesm_core.files import make_folder

    build_device(device)  # a missing device is reported before anything is written
    made = make_folder(folder)
    empty = not any(folder.iterdir())
    if not empty and not overwrite:
        raise OutputError(f"{folder} is not empty.", hint="Add --overwrite, or choose another folder with --out.")
    try:
        _run(folder, device)
    except OutputError as error:
        if empty:  # a full disk: nothing of it is worth keeping
            with suppress(OSError):
                for path in folder.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                for path in made:
                    path.rmdir()
            error.hint = "Free some space, or choose another folder with --out."
        raise


def _run(folder: Path, device: str) -> None:
    """Make the data, train, evaluate and ask, and show the commands and what came of them."""
    from mesm_cli.commands import evaluate, predict, prepare, prepare_features, train
    from mesm_core.data.invented import write_invented
    from mesm_core.files import write_atomically

    began = time.monotonic()
    data = folder / "data"
    made = write_invented(data, videos=VIDEOS)
    settings = folder / "demo.toml"
    write_atomically(settings, SETTINGS.format(epochs=EPOCHS).encode())
    render.say(f"Wrote an invented dataset to {data}: {sum(VIDEOS.values())} videos of kitchen work, as .npy files.\n")

    features = data / "TACoS" / "c3d.hdf5"
    _show("prepare", "npy2hdf5", made.npy, features, "--fps", made.feature_fps)
    prepare_features.npy2hdf5([str(made.npy), str(features)], fps=made.feature_fps, overwrite=True)
    _show("count-tokens", "--dataset", "tacos", "--data-dir", data)
    prepare.count_tokens("tacos", data_dir=data, overwrite=True)
    runs = folder / "runs"
    _show("train", "--dataset", "tacos", "--config", settings, "--data-dir", data, "--runs-dir", runs)
    train.train("tacos", data_dir=data, config=settings, runs_dir=runs, device=device, overwrite=True)
    run = runs / "tacos-default"
    best = run / "best.pt"
    _show("eval", best, "--split", "test")
    evaluate.evaluate(best, split="test", device=device)
    vid, sentence = _longest_query(made.annotations / "test.json")
    _show("predict", best, "--video", vid, sentence)
    predict.predict(best, [sentence], video=vid, device=device)

    untrained, trained = _before_and_after(run / "metrics.jsonl")
    render.say()
    rows = [(key, f"{untrained[key]:.2f}", f"{trained[key]:.2f}") for key in SHOWN]
    render.table(["on the validation videos", "before", "after training"], rows)
    render.say(f"\nDone in {time.monotonic() - began:.0f} s. Everything is in {folder}:")
    for path, what in (
        (made.npy, "the features, one .npy a video"),
        (features, "the same as one HDF5 file"),
        (made.annotations, "annotations and count files"),
        (settings, "the settings that differ from the tacos preset"),
        (run, "the run: best.pt, last.pt, metrics.jsonl, predictions/, TensorBoard events"),
    ):
        render.say(f"  {path}  [dim]{what}[/]")


def _show(*words: object) -> None:
    render.say(f"\n[bold green]$ mesm {render.plain(shlex.join(map(str, words)))}[/]")


def _longest_query(path: Path) -> tuple[str, str]:
    """Return a video of the split and its longest moment's sentence."""
    vid, video = next(iter(json.loads(path.read_text(encoding="utf-8")).items()))
    lengths = [end - start for start, end in video["timestamps"]]
    return vid, video["sentences"][lengths.index(max(lengths))]


def _before_and_after(path: Path) -> tuple[dict[str, float], dict[str, float]]:
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    evaluated = [record["eval"]["val"] for record in records if "eval" in record]
    return evaluated[0], evaluated[-1]
