"""How well is a moment found in half an hour of video: seen at once, in windows, and in the right window alone?

    python benchmarks/long_videos.py --shared ../shared --work /tmp/long-videos

Trains on golden/learning's charades600 (real Charades-STA annotations, planted features), puts 60 test videos in a
row, and asks about each with a query that describes no other of them. Prints R1@0.5 of three answers: the video
averaged into bins (--window off), in overlapping windows (auto), and in the one window that holds the moment best,
which tells what choosing between windows costs. Exits with 1 where windows are not 5 times as good as bins.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from learning import PROBLEMS, plant

from mesm_core import __version__
from mesm_core.build import Paths
from mesm_core.config.load import load_config
from mesm_core.data.annotations import make_reader
from mesm_core.inference.predictor import Answer, Asked, MomentRetriever
from mesm_core.inference.windows import cut_video
from mesm_core.metrics.moments import iou
from mesm_core.training.directory import prepare_directory
from mesm_core.training.events import EpochDone
from mesm_core.training.run import Run
from mesm_core.types import Query

PROBLEM = "charades600"
VIDEOS = 60
ALIKE = 0.5
TARGET = 5.0
THRESHOLD = 0.5


@dataclass(frozen=True)
class Long:
    """Short videos in a row: frames (L, D), seconds, and each query with its moment in the row's seconds."""

    frames: np.ndarray
    duration: float
    queries: list[str]
    moments: np.ndarray


def trained(work: Path, paths: Paths, *, seed: int) -> Path:
    """Return the best checkpoint of a run, which is trained unless it is there."""
    folder = work / f"run-{seed}"
    if not (folder / "done").exists():
        problem = PROBLEMS[PROBLEM]
        config = load_config(problem.preset, overrides=[*problem.settings, f"train.seed={seed}"])
        prepare_directory(folder, overwrite=True)
        for event in Run(config, paths, folder, device=torch.device("cpu")).train():
            if isinstance(event, EpochDone):
                (brief,) = event.record["eval"].values()
                print(f"  epoch {event.record['epoch']:2}  R1@0.5 {brief['MR-full-R1@0.5']:.2f}", flush=True)
        (folder / "done").touch()
    return folder / "best.pt"


def content(sentence: str) -> frozenset[str]:
    """Return the words of a sentence that planted frames are made of: those of more than three letters."""
    return frozenset(word for word in sentence.lower().replace(".", " ").split() if len(word) > 3) - {"person"}


def alike(one: frozenset[str], other: frozenset[str]) -> bool:
    """Return whether two sentences share too much of their content to describe different things."""
    return len(one & other) > ALIKE * min(len(one), len(other)) or not one


def in_a_row(queries: Sequence[Query], file: h5py.File) -> Iterator[Long]:
    """Yield long videos of ``VIDEOS`` short ones, with at most one query of each that describes no other of them."""
    by_video: dict[str, list[Query]] = {}
    for query in queries:
        by_video.setdefault(query.vid, []).append(query)
    vids = list(by_video)
    for first in range(0, len(vids) - VIDEOS + 1, VIDEOS):
        row = vids[first : first + VIDEOS]
        parts = [file[vid][:].astype(np.float32) for vid in row]
        # The features have one row a second, and so has the long video: its time is that of its rows.
        starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        said, moments = [], []
        for place, vid in enumerate(row):
            others = [content(q.sentence) for other in row if other != vid for q in by_video[other]]
            for query in by_video[vid]:
                own = content(query.sentence)
                if not any(alike(own, other) for other in others):
                    scale = len(parts[place]) / query.duration
                    moments.append([starts[place] + edge * scale for edge in query.windows[0]])
                    said.append(query.sentence)
                    break
        yield Long(np.concatenate(parts), float(starts[-1]), said, np.array(moments))


def right_window(retriever: MomentRetriever, video: Long) -> list[Answer]:
    """Return the answers of the window that each moment lies deepest in, in seconds of that window."""
    pieces = cut_video(
        [video.frames],
        window="auto",
        duration=video.duration,
        lengths=retriever.lengths,
        max_frames=retriever.config.dataset.max_frames,
    )
    edges = np.array([[piece.start, piece.start + piece.seconds] for piece in pieces])
    margin = np.minimum(video.moments[:, None, 0] - edges[:, 0], edges[:, 1] - video.moments[:, None, 1])
    chosen = margin.argmax(axis=1)
    asked = [
        Asked(pieces[place].parts, [query], pieces[place].seconds)
        for place, query in zip(chosen, video.queries, strict=True)
    ]
    found = [answers[0] for answers in retriever.locate_many(asked, window="off")]
    video.moments[:] -= edges[chosen, :1]
    return found


def recall(answers: Sequence[Answer], moments: np.ndarray) -> list[bool]:
    """Return for each query whether the first moment's IoU reaches the threshold."""
    first = np.array([[a.moments[0].start, a.moments[0].end] for a in answers])
    return list(iou(first, moments) >= THRESHOLD)


def main() -> int:
    """Train, ask and compare; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/mesm-long-videos"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=2019)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    features = arguments.work / "features.hdf5"
    plant(arguments.shared, features)
    annotations = arguments.shared / "golden" / "learning" / PROBLEM / "annotations"
    paths = Paths(annotations, (features,), arguments.shared / PROBLEMS[PROBLEM].text)
    began = time.monotonic()
    retriever = MomentRetriever.load(trained(arguments.work, paths, seed=arguments.seed), device="cpu")
    training = time.monotonic() - began
    hits: dict[str, list[bool]] = {"bins": [], "windows": [], "right window": []}
    seconds = {"bins": 0.0, "windows": 0.0}
    queries = make_reader("charades").read(annotations, "test").queries
    with h5py.File(features) as file:
        videos = list(in_a_row(queries, file))
    for video in videos:
        for name, window in (("bins", "off"), ("windows", "auto")):
            began = time.monotonic()
            answers = retriever.locate(video.frames, video.queries, duration=video.duration, window=window)
            seconds[name] += time.monotonic() - began
            hits[name] += recall(answers, video.moments)
        hits["right window"] += recall(right_window(retriever, video), video.moments)
    scores = {name: 100 * float(np.mean(found)) for name, found in hits.items()}
    minutes = ", ".join(f"{video.duration / 60:.1f}" for video in videos)
    print(f"{len(videos)} videos of {minutes} minutes, {len(hits['bins'])} queries; trained in {training:.0f} s")
    print(f"training videos: longest {retriever.lengths.longest:g} s, median {retriever.lengths.median:g} s")
    for name, score in scores.items():
        print(f"R1@0.5, {name:<13} {score:6.2f}" + (f"   {seconds[name]:.1f} s" if name in seconds else ""))
    ratio = scores["windows"] / max(scores["bins"], 100 / len(hits["bins"]))
    print(f"windows / bins: {ratio:.1f} (at least {TARGET:g})")
    where = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads"
    print(f"{where}, load {os.getloadavg()[0]:.1f}; mesm {__version__}, torch {torch.__version__}", end="")
    print(f", Python {platform.python_version()}")
    return int(ratio < TARGET)


if __name__ == "__main__":
    sys.exit(main())
