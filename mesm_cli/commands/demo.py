"""``mesm demo``: the whole pipeline on generated videos, from features to a clip."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mesm_cli import formats, options, render

if TYPE_CHECKING:
    from mesm_core.build import Paths
    from mesm_core.config.schema import Config
    from mesm_core.types import Query

SETTINGS = """\
# Changes to the preset for your own videos: a small model for a small set of small videos.
preset = "jsonl"

[dataset]
train = "train.jsonl"
eval = "val.jsonl"
annotations = "."
videos = "videos"
backbones = ["pixels"]   # colours, edges and motion only; real videos need clip-b32
clip_len = 1             # seconds that each row of features covers
max_frames = 64
max_words = 8

[text]
glove = "glove.invented.txt"

[model]
text_dim = 32
hidden_dim = 64
heads = 4
dim_feedforward = 128
segment_sentence_layers = 2
dropout = 0
input_dropout = 0.1

[loss]
saliency = 1
rank_coef = 1
triplet = true

[train]
batch_size = 4
epochs = 40
lr = 8e-4
lr_drop = 34
eval_every = 4
eval_untrained = true
seed = {seed}

[eval]
batch_size = 20
"""
VIDEOS = {"train": 60, "val": 16, "test": 16}
SHOWN = ("MR-full-R1@0.3", "MR-full-R1@0.5", "MR-full-R1@0.7", "MR-full-mIoU", "MR-full-mAP")
TOP = 3

Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31, help="Seed of the videos and of the training.")]


def demo(
    folder: Annotated[Path, typer.Option("--out", help="Output folder.")] = Path("mesm-demo"),
    seed: Seed = 0,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Run the whole pipeline on generated videos. Needs no files and takes two to three minutes.

    The demo draws short videos of moving shapes with sentences about them, extracts features, trains a small model,
    evaluates it on test videos, finds the moment of a sentence in one of them and cuts it out. Each step is shown with
    the command that does the same for your own videos.
    """
    from mesm_core.build import build_device
    from mesm_core.errors import OutputError
    from mesm_core.files import make_folder

    build_device(device)  # reports a missing device before anything is written
    made = make_folder(folder)
    empty = not any(folder.iterdir())
    if not empty and not overwrite:
        raise OutputError(f"{folder} is not empty.", hint="Add --overwrite, or choose another folder with --out.")
    try:
        with redirect_stdout(sys.stderr if json_ else sys.stdout):
            result = _run_steps(folder, seed, device)
    except OutputError as error:
        if empty:  # the disk is full: remove the incomplete demo
            with suppress(OSError):
                for path in folder.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                for path in made:
                    path.rmdir()
            error.hint = "Free some space, or choose another folder with --out."
        raise
    if json_:
        render.data(result)


def _run_steps(folder: Path, seed: int, device: str) -> dict[str, Any]:
    """Run all steps and return their results."""
    from mesm_core.build import data_paths
    from mesm_core.config.load import DATA_ROOT, load_config

    began = time.monotonic()
    file, runs = folder / "demo.toml", folder / "runs"
    _draw(folder, file, seed)
    settings = load_config(file=file)
    paths = data_paths(settings, DATA_ROOT)
    _extract(settings, paths, folder, device)
    _count(settings, paths, file)
    run, trained = _train(file, runs, device)
    best = run / "best.pt"
    scores = _evaluate(best, folder, device)
    found = _find(best, folder, device)
    _next(folder, run, time.monotonic() - began)
    return {
        "folder": str(folder),
        "seed": seed,
        "checkpoint": str(best),
        "seconds": round(time.monotonic() - began, 1),
        "val": trained,
        "test": scores,
        **found,
    }


def _draw(folder: Path, file: Path, seed: int) -> None:
    from mesm_core.data.invented_videos import write_invented_videos
    from mesm_core.files import write_atomically

    total = sum(VIDEOS.values())
    _step(1, "Videos, and sentences about what happens in them")
    with render.progress("Drawing", total, unit="videos") as advance:
        for vid in write_invented_videos(folder, videos=VIDEOS, seed=seed):
            advance(1, vid)
    write_atomically(file, SETTINGS.format(seed=seed).encode())
    first = (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()[0]
    render.say(f"{total} videos in {folder / 'videos'}, in three splits: {json.dumps(VIDEOS)[1:-1]}")
    render.say(f"train.jsonl: {first}")


def _extract(settings: Config, paths: Paths, folder: Path, device: str) -> None:
    from mesm_cli.commands import own_videos

    _step(2, "Features, which describe what each second looks like")
    names = [word for name in settings.dataset.backbones for word in ("--backbone", name)]
    features = paths.features[0].parent
    _show("extract", folder / "videos", features, *names, "--clip-len", f"{settings.dataset.clip_len:g}")
    splits = (settings.dataset.train, *settings.dataset.eval, str(folder / "test.jsonl"))
    own_videos.extract_missing(settings, paths, splits, device=device, skip_missing=False, say=render.say)


def _count(settings: Config, paths: Paths, file: Path) -> None:
    from mesm_core.data.count_dataset import count_dataset
    from mesm_core.data.splits import counted_splits

    _step(3, "The words of the sentences")
    _show("count-tokens", "--config", file)
    written = count_dataset(
        settings.dataset.name,
        paths.annotations,
        out=paths.annotations,
        kinds=["glove"],
        max_words=settings.dataset.max_words,
        overwrite=True,
        splits=counted_splits(settings.dataset),
    )
    render.say(f"{written[0].tokens} words, {written[0].rows} distinct")


def _train(file: Path, runs: Path, device: str) -> tuple[Path, dict[str, float]]:
    """Train. Return the folder of the run and the validation scores of its best checkpoint."""
    from mesm_cli.commands.training_display import display_training
    from mesm_core.build import build_device
    from mesm_core.build.ready import require_ready
    from mesm_core.training.directory import claimed, prepare_directory, read_records, run_directory
    from mesm_core.training.run import Run
    from mesm_core.training.start import Given, new_run

    _step(4, "Training, the longest step")
    _show("train", "--config", file, "--runs-dir", runs)
    settings, paths = new_run(None, file, [], Given(), init=None)
    require_ready(settings, paths, device=device)
    directory = run_directory(runs, settings.dataset.name, "default")
    run = Run.open(settings, paths, directory, device=build_device(device))
    with claimed(directory):
        prepare_directory(directory, overwrite=True)
        _, code = display_training(run, human=lambda _: None)
    if code:
        raise typer.Exit(code)
    evaluated = [next(iter(r["eval"].values())) for r in read_records(directory) if r.get("eval")]
    best = max(evaluated, key=lambda brief: brief["MR-full-mIoU"])
    key = "MR-full-R1@0.5"
    course = " → ".join(f"{brief[key]:.0f}" for brief in evaluated)
    render.say(f"{settings.train.epochs} epochs; R1@0.5 on the validation videos, %: {course}")
    return directory, {name: best[name] for name in SHOWN}


def _evaluate(best: Path, folder: Path, device: str) -> dict[str, float | None]:
    from mesm_core.files import together
    from mesm_core.inference.evaluation_files import write_evaluation
    from mesm_core.inference.scoring import load_for_scoring, score_checkpoint
    from mesm_core.pages.report import write_report

    _step(5, "Evaluation on test videos, which the model has not seen")
    split, page = folder / "test.jsonl", folder / "report.html"
    _show("eval", best, "--split", split, "--report", page)
    job = load_for_scoring(best, split=str(split), device=device)
    evaluation = score_checkpoint(job)
    with together():
        target = best.parent / "predictions" / "best-test.jsonl"
        tables = write_evaluation(evaluation, job, best, target, overwrite=True)
        write_report(page, evaluation, job.dataset.queries, tables, overwrite=True)
    render.table([f"{len(job.dataset)} test queries", "%"], [(key, f"{evaluation.brief[key]:.2f}") for key in SHOWN])
    return {key: evaluation.brief[key] for key in SHOWN}


def _find(best: Path, folder: Path, device: str) -> dict[str, Any]:
    """Find a sentence in the first test video, show the answer, cut the moments out, and write a page."""
    from mesm_core.inference.clips import cut_clips, plan_clips
    from mesm_core.inference.locate import Located, Locator
    from mesm_core.pages.located import write_located_page

    query = _longest(folder / "test.jsonl")
    video, page, clips = folder / "videos" / f"{query.vid}.mp4", folder / "moments.html", folder / "clips"
    _step(6, "Finding the moment of a sentence in a test video")
    _show("locate", video, query.sentence, "--model", best, "--top", TOP, "--cut", clips, "--page", page)
    locator = Locator.load(best, device=device)
    (found,) = locator.locate_many({video: [query.sentence]})
    assert isinstance(found, Located)  # the video was read before
    answer = found.answers[0]
    render.answer(answer, video=str(video), duration=found.duration, top=TOP)
    write_located_page(page, [found], top=TOP, note=" ".join(locator.warnings), overwrite=True)
    cuts = list(cut_clips(plan_clips([found], clips, top=TOP, fast=False), fast=False, overwrite=True))
    start, end = query.windows[0]
    render.say(f"The annotation is {start:.1f} to {end:.1f} s. Best moment as a clip: {cuts[0].planned.target}")
    return {
        "video": query.vid,
        "query": query.sentence,
        "annotated": [start, end],
        "moments": [{"start": m.start, "end": m.end, "score": m.score} for m in answer.moments[:TOP]],
        "clip": str(cuts[0].planned.target),
        "pages": [str(folder / "report.html"), str(page)],
    }


def _next(folder: Path, run: Path, seconds: float) -> None:
    render.say(f" Look at {folder / 'report.html'} and {run}.", title=f"\nDone in {formats.duration(seconds)}.")
    render.say("Next, for your own videos, annotated as in train.jsonl:")
    render.say(f"  1. Copy {folder / 'demo.toml'} to mine.toml and name your files in it.")
    render.say('  2. Set backbones = ["clip-b32"] in it, and run: mesm weights pull clip-b32')
    render.say("  3. Run: mesm count-tokens --config mine.toml; mesm train --config mine.toml")


def _longest(path: Path) -> Query:
    """Return the query with the longest moment in the first video."""
    from mesm_core.data.readers.json_lines import read_lines

    queries = read_lines(path).queries
    of_first = [query for query in queries if query.vid == queries[0].vid]
    return max(of_first, key=lambda query: query.windows[0][1] - query.windows[0][0])


def _step(number: int, what: str) -> None:
    render.say(title=f"\n{number}. {what}")


def _show(*words: object) -> None:
    render.say(f"$ mesm {shlex.join(map(str, words))}", style="bold green")
