"""Compare zero-shot with sliding windows, on synthetic CLIP features for real annotations. See zero_shot.md.

python -m benchmarks.zero_shot ../shared/data/charades/annotations --dataset charades
"""

from __future__ import annotations

import argparse
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import h5py
import numpy as np
import torch
from torch import nn

from mesm_core.build import build_sentences, metric_settings
from mesm_core.config.load import load_config
from mesm_core.data.readers import read_split
from mesm_core.inference.evaluate import score_predictions
from mesm_core.inference.scoring import Job, load_for_scoring, score_checkpoint
from mesm_core.inference.zero_shot import (
    SMOOTHING_SECONDS,
    rank_moments,
    similarities,
    smoothed,
    standardised,
)
from mesm_core.text.clip import ClipTextTransformer
from mesm_core.text.clip_weights import PROJECTION, write_clip_text
from mesm_core.types import Prediction, Query
from tests.planted_frames import Planting, plant, sliding_maximum, unit

WIDTH, JOINT = 64, 512
Answer = Callable[[np.ndarray, np.ndarray, float], tuple[float, float]]


def main() -> None:
    """Generate features, evaluate every method, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--dataset", default="charades")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1.0, help="frames a second")
    options = parser.parse_args()
    torch.set_num_threads(1)
    queries = read_split(options.dataset, options.annotations, options.split).queries
    usual = float(np.mean([end - start for query in queries for start, end in query.windows]))
    print(f"{len(queries)} queries, {len({q.vid for q in queries})} videos; moments last {usual:.1f} s on average\n")
    print("| lean | method | R1@0.3 | R1@0.5 | R1@0.7 | mIoU |\n| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for lean in ((0.02, 0.08), (0.03, 0.12)):
            rows: dict[str, list[list[float]]] = {}
            for seed in range(options.seeds):
                _measure(options, queries, usual, seed, replace(Planting(), lean=lean), Path(folder), rows)
            for name, values in rows.items():
                mean = " | ".join(f"{value:.1f}" for value in np.mean(values, axis=0))
                print(f"| {lean[0]:g} to {lean[1]:g} | {name} | {mean} |", flush=True)


def _measure(options, queries, usual, seed, planting, folder, rows) -> None:  # type: ignore[no-untyped-def]
    clip, features = folder / "clip.safetensors", folder / "clip_image.hdf5"
    write_tower(clip, seed)
    write_features(features, queries, clip, seed=seed, rate=options.rate, planting=planting)
    job = load_for_scoring(
        Path("zero-shot"),
        dataset=options.dataset,
        annotations=options.annotations,
        features=[features],
        text=clip,
        split=options.split,
        device="cpu",
    )
    begin = perf_counter()
    brief = score_checkpoint(job).brief
    seconds = perf_counter() - begin
    rows.setdefault("zero-shot", []).append(_row(brief))
    for name, answer in methods(usual).items():
        rows.setdefault(name, []).append(_row(_score(job, features, clip, answer)))
    if seed == 0:
        print(f"<!-- zero-shot: {seconds:.1f} s for {len(queries)} queries, sentences encoded -->")


def methods(usual: float) -> dict[str, Answer]:
    """Return the other methods. ``usual`` is the mean length of the split's moments; only one method uses it."""

    def ungrouped(similarity: np.ndarray, deviation: float, duration: float) -> tuple[float, float]:
        length = len(similarity)
        spans = np.stack(np.triu_indices(length + 1, k=1), axis=1)
        series = smoothed(standardised(similarity[:, None]), deviation)[:, 0] if deviation else similarity
        start, end, _ = rank_moments(series, spans, duration)[0]
        return float(start), float(end)

    return {
        "zero-shot, all spans of frames instead of coherent segments": lambda s, f, d: ungrouped(
            s, SMOOTHING_SECONDS * len(s) / d, d
        ),
        "the same without smoothing": lambda s, f, d: ungrouped(s, 0.0, d),
        "sliding window, maximum over all multiples of 4 s": lambda s, f, d: sliding_maximum(
            s, d, [*np.arange(4.0, max(d, 4.1), 4.0)]
        ),
        f"sliding window of the split's mean length, {usual:.1f} s": lambda s, f, d: sliding_maximum(s, d, [usual]),
        "whole video": lambda s, f, d: (0.0, d),
    }


def write_tower(path: Path, seed: int) -> None:
    """Write a small random CLIP text encoder with a projection to ``JOINT`` dimensions."""
    torch.manual_seed(seed)
    model = ClipTextTransformer(vocabulary=49408, context=77, width=WIDTH, layers=2, heads=2)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02 if name == "positional_embedding" else WIDTH**-0.5)
    # Start and end tokens are in every sentence. If their vectors were not zero, all sentences would be similar.
    model.token_embedding.weight.data[-2:] = 0
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    projection = torch.randn(WIDTH, JOINT) / WIDTH**0.5
    write_clip_text(path, weights | {PROJECTION: projection}, heads=2, activation="quick_gelu", overwrite=True)


def write_features(
    path: Path, queries: tuple[Query, ...], clip: Path, *, seed: int, rate: float, planting: Planting
) -> None:
    """Write the synthetic frames of all videos to a feature file, as float16."""
    sentences = build_sentences(clip, device=torch.device("cpu"))
    with h5py.File(path, "w") as file:
        for vid, group in _by_video(queries).items():
            rng = np.random.default_rng([seed, zlib.crc32(vid.encode())])
            vectors = sentences.embed([query.sentence for query in group])
            windows = [query.windows for query in group]
            frames = plant(vectors, windows, group[0].duration, rate=rate, rng=rng, planting=planting)
            file[vid] = frames.astype(np.float16)


def _score(job: Job, features: Path, clip: Path, answer: Answer) -> dict[str, float | None]:
    sentences = build_sentences(clip, device=torch.device("cpu"))
    found: dict[int | str | None, Prediction] = {}
    with h5py.File(features) as file:
        for vid, group in _by_video(job.dataset.queries).items():
            frames = unit(file[vid][()].astype(np.float32))
            seen = similarities(frames, sentences.embed([query.sentence for query in group]))
            for column, query in enumerate(group):
                window = np.array([[*answer(seen[:, column], frames, query.duration), 1.0]])
                found[query.qid] = Prediction(query.qid, query.sentence, vid, window, seen[:, column])
    ordered = [found[query.qid] for query in job.dataset.queries]
    settings = metric_settings(load_config(job.config.dataset.name))
    return score_predictions(ordered, job.dataset.queries, clip_len=-1, **settings).brief


def _by_video(queries: tuple[Query, ...]) -> dict[str, list[Query]]:
    videos: dict[str, list[Query]] = {}
    for query in queries:
        videos.setdefault(query.vid, []).append(query)
    return videos


def _row(brief: dict[str, float | None]) -> list[float]:
    return [float(brief[key] or 0) for key in ("MR-full-R1@0.3", "MR-full-R1@0.5", "MR-full-R1@0.7", "MR-full-mIoU")]


if __name__ == "__main__":
    main()
