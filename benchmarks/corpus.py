"""Search the planted test set of Charades-STA as one collection, and print the recall of both stages. See corpus.md.

    python benchmarks/learning.py charades600_tacos --work /tmp/learning
    python benchmarks/corpus.py --model /tmp/learning/charades600_tacos-fp32-2019/best.pt

The features of all videos are those of `shared/tools/plant_features.py` with the settings of the learning problems, and
the vector of a query is the one that was planted for its sentence. Without --model, stage two is zero-shot.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import torch

from mesm_core.arrays import normalise
from mesm_core.data.readers import read_split
from mesm_core.inference.predictor import MomentRetriever
from mesm_core.search import Index, Searcher
from mesm_core.search.corpus import evaluate_corpus
from mesm_core.search.manifest import IndexedVideo, Kept, Manifest, Network
from mesm_core.search.searcher import ORDERS, MomentModel
from mesm_core.search.segments import pool_segments
from mesm_core.search.writer import changing
from mesm_core.types import Query

DIM, NOISE, SEED = 128, "0.7", 0
NETWORK = Network("planted", None, DIM)


class PlantedSentences:
    """Encodes sentences as the tool that planted them does."""

    width = DIM

    def __init__(self, tool: ModuleType, words: Path) -> None:
        self._words = tool.WordVectors(words)
        generator = np.random.default_rng(SEED)
        self._projection = generator.normal(size=(self._words.dim, DIM)).astype(np.float32) / self._words.dim**0.5

    def embed(self, sentences: Sequence[str]) -> np.ndarray:
        """Return (n, 128) float32 vectors of length 1."""
        planted = np.stack([self._words.sentence(sentence) for sentence in sentences])
        return normalise(planted @ self._projection)


def make_index(path: Path, features: Path, queries: Sequence[Query]) -> Index:
    """Return an index of the videos of queries, with one row of features a second."""
    durations = {query.vid: query.duration for query in queries}
    manifest = Manifest((NETWORK,), "1", "bilinear", "float16", 8.0, 0.5, "exact")
    with h5py.File(features) as file, changing(path, manifest) as writer:
        for vid, duration in durations.items():
            rows = file[vid][()].astype(np.float32)
            segments = pool_segments(rows, clip_len=duration / len(rows), duration=duration)
            kept = (Kept(NETWORK.name, str(features), vid),)
            about = (features, vid, vid, 0, 0, duration, duration / len(rows), len(segments), "2026-01-01", kept)
            writer.add(IndexedVideo(vid, *about), segments)
        writer.commit()
    return Index.open(path)


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/mesm-corpus"))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--order", choices=ORDERS, default=ORDERS[0], help="of the moments of stage two")
    parser.add_argument("--limit", type=int, help="only the first queries; the collection stays the same")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    annotations = options.shared.resolve() / "data/charades/annotations"
    words, script = annotations / "glove.pkl", options.shared.resolve() / "tools/plant_features.py"
    options.work.mkdir(parents=True, exist_ok=True)
    features = options.work / "features.hdf5"
    if not features.exists():
        command = ["charades", annotations, features, "--dim", DIM, "--fps", 1, "--noise", NOISE, "--glove-pkl", words]
        subprocess.run([sys.executable, script, *map(str, command)], check=True)
    spec = importlib.util.spec_from_file_location("plant_features", script)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    queries = read_split("charades", annotations, "test").queries
    path = options.work / "index"
    index = Index.open(path) if path.exists() else make_index(path, features, queries)
    model = None
    if options.model is not None:
        retriever = MomentRetriever.load(options.model, device="cpu")
        model = MomentModel(retriever, (NETWORK.name,), float("inf"), float("inf"))
    searcher = Searcher(index, PlantedSentences(tool, words), model)
    began, done = time.monotonic(), 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        print(f"\r{done} queries, {time.monotonic() - began:.0f} s", end="", file=sys.stderr)

    report = evaluate_corpus(searcher, queries[: options.limit], order=options.order, progress=progress)
    columns = list(next(iter(report.rows.values())))
    print(f"\n{report.queries} queries, {report.videos} videos, {time.monotonic() - began:.0f} s\n")
    print(f"| | {' | '.join(columns)} |\n| --- |{' --- |' * len(columns)}")
    for name, row in report.rows.items():
        print(f"| {name} | {' | '.join(f'{row[column]:.1f}' for column in columns)} |")


if __name__ == "__main__":
    main()
