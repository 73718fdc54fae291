"""Measure how well moments are found in half an hour of video: at once, in windows, and in the right window only.

    python benchmarks/long_videos.py --work /tmp/long-videos

Trains a small model on generated videos with the lengths of Charades-STA (about half a minute, three or four moments),
whose frames are a projection of the words that describe them. Concatenates 60 test videos in which no two moments have
the same sentence, and queries one moment of each. Prints R1@0.5 for the video averaged into bins (--window off), in
overlapping windows (auto) ranked by calibrated confidence, in the same windows ranked by saliency, and in the window
that contains the moment best, which shows the cost of choosing among windows. Exits with 1 if windows are not at least
5 times as good as bins.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from mesm_core.build import Paths
from mesm_core.config.load import load_config
from mesm_core.data.count_dataset import count_dataset
from mesm_core.inference.predictor import Answer, MomentRetriever, VideoQueries
from mesm_core.inference.windows import cut_video
from mesm_core.metrics.moments import iou
from mesm_core.training.directory import prepare_directory
from mesm_core.training.events import EpochDone
from mesm_core.training.run import Run
from mesm_core.version import __version__

ACTIONS = (
    "opens", "closes", "takes", "throws", "holds", "pours", "eats", "drinks", "washes", "folds", "carries", "fixes",
    "watches", "reads", "wears", "lifts", "kicks", "paints", "cuts", "cleans",
)  # fmt: skip
OBJECTS = (
    "door", "window", "book", "cup", "towel", "pillow", "phone", "laptop", "shoe", "blanket", "sandwich", "bottle",
    "mirror", "broom", "box", "bag", "plate", "chair", "table", "lamp", "shirt", "picture", "medicine", "vacuum",
    "dish", "glass", "camera", "doorknob", "paper", "bed",
)  # fmt: skip
FILLERS = ("person", "the", "a")
TEXT_DIM, VIDEO_DIM, NOISE = 32, 48, 0.3
TRAIN, VAL, ROWS, VIDEOS = 300, 40, 3, 60
SETTINGS = (
    "dataset.clip_len=1", "dataset.max_frames=194", "text.vocab_size=40", f"model.video_dim={VIDEO_DIM}",
    f"model.text_dim={TEXT_DIM}", "model.hidden_dim=64", "model.heads=4", "model.dim_feedforward=128",
    "model.segment_sentence_layers=2", "model.dropout=0", "model.input_dropout=0.1", "train.batch_size=8",
    "train.epochs=16", "train.lr=8e-4", "train.eval_every=4", "train.select_on=val",
)  # fmt: skip
TARGET = 5.0
THRESHOLD = 0.5
Moment = tuple[float, float, str]


@dataclass(frozen=True)
class Short:
    """A short video: frames (L, D), one per second, and its moments with their sentences."""

    vid: str
    frames: np.ndarray
    moments: list[Moment]

    @property
    def seconds(self) -> float:
        return float(len(self.frames))


@dataclass(frozen=True)
class Long:
    """Concatenated short videos: frames (L, D), duration, and the queries with their moments (Q, 2) in seconds."""

    frames: np.ndarray
    duration: float
    queries: list[str]
    moments: np.ndarray


class World:
    """Word vectors, and videos whose frames are a fixed projection of the words that describe them, plus noise."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.vectors = {word: self._rng.normal(size=TEXT_DIM) for word in (*FILLERS, *ACTIONS, *OBJECTS)}
        self._projection = self._rng.normal(size=(TEXT_DIM, VIDEO_DIM)) / TEXT_DIM**0.5

    def videos(self, name: str, count: int) -> list[Short]:
        """Return videos in which no two moments have the same sentence, if there are enough sentences."""
        pairs = np.concatenate([self._rng.permutation(len(ACTIONS) * len(OBJECTS)) for _ in range(count)])
        found = []
        for number in range(count):
            used = int(self._rng.integers(3, 5))
            found.append(self._video(f"{name}-{number:03}", pairs[:used]))
            pairs = pairs[used:]
        return found

    def _video(self, vid: str, pairs: np.ndarray) -> Short:
        moments: list[Moment] = []
        latent = []
        for pair in pairs:
            action, thing = ACTIONS[pair // len(OBJECTS)], OBJECTS[pair % len(OBJECTS)]
            seconds, start = int(self._rng.integers(5, 13)), sum(map(len, latent))
            latent.append(np.tile((self.vectors[action] + self.vectors[thing]) / 2, (seconds, 1)))
            moments.append(
                (float(start), float(start + seconds), f"person {action} {self._rng.choice(['the', 'a'])} {thing}.")
            )
        clean = np.concatenate(latent) @ self._projection
        noisy = clean + NOISE * clean.std() * self._rng.normal(size=clean.shape)
        return Short(vid, noisy.astype(np.float32), moments)


def written(work: Path, world: World, splits: dict[str, list[Short]]) -> Paths:
    """Write videos in the layout of TACoS, whose annotations are plain JSON, and return their paths."""
    annotations, features, glove = work / "annotations", work / "features.hdf5", work / "glove.txt"
    annotations.mkdir(parents=True, exist_ok=True)
    rows = (f"{word} {' '.join(f'{x:.5f}' for x in vector)}\n" for word, vector in world.vectors.items())
    glove.write_text("".join(rows))
    with h5py.File(features, "w") as file:
        for split, videos in splits.items():
            for video in videos:
                file[video.vid] = video.frames
            content = {
                video.vid: {
                    "timestamps": [[start, end] for start, end, _ in video.moments],
                    "sentences": [sentence for *_, sentence in video.moments],
                    "fps": 1.0,
                    "num_frames": len(video.frames),
                }
                for video in videos
            }
            (annotations / f"{split}.json").write_text(json.dumps(content))
    count_dataset("tacos", annotations, out=annotations, kinds=["glove"], max_words=16, overwrite=True)
    return Paths(annotations, (features,), glove)


def trained(work: Path, paths: Paths, *, seed: int) -> Path:
    """Train and return the path of the best checkpoint."""
    folder = work / "run"
    config = load_config("tacos", overrides=[*SETTINGS, f"train.seed={seed}"])
    prepare_directory(folder, overwrite=True)
    for event in Run.open(config, paths, folder, device=torch.device("cpu")).train():
        if isinstance(event, EpochDone) and event.record.get("eval"):
            (brief,) = event.record["eval"].values()
            print(f"  epoch {event.record['epoch']:2}  R1@0.5 {brief['MR-full-R1@0.5']:.2f}", flush=True)
    return folder / "best.pt"


def in_a_row(videos: Sequence[Short]) -> Long:
    """Concatenate short videos, with one query about each: its middle moment."""
    starts = np.concatenate([[0], np.cumsum([video.seconds for video in videos])])
    chosen = [video.moments[len(video.moments) // 2] for video in videos]
    moments = np.array([[at + start, at + end] for at, (start, end, _) in zip(starts, chosen, strict=False)])
    return Long(
        np.concatenate([video.frames for video in videos]),
        float(starts[-1]),
        [sentence for *_, sentence in chosen],
        moments,
    )


def right_window(retriever: MomentRetriever, video: Long) -> list[bool]:
    """Return for each query whether it is found in the window whose edges are farthest from its moment."""
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
        VideoQueries(pieces[place].parts, [query], pieces[place].seconds)
        for place, query in zip(chosen, video.queries, strict=True)
    ]
    found = [answers[0] for answers in retriever.locate_many(asked, window="off")]
    return recall(found, video.moments - edges[chosen, :1])


def recall(answers: Sequence[Answer], moments: np.ndarray) -> list[bool]:
    """Return for each query whether the IoU of the first moment reaches the threshold."""
    first = np.array([[a.moments[0].start, a.moments[0].end] for a in answers])
    return list(iou(first, moments) >= THRESHOLD)


def main() -> int:
    """Train, predict and compare. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/tmp/mesm-long-videos"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, help="best.pt of an earlier run with the same seed; skips training")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    world = World(arguments.seed)
    tests = [world.videos(f"test{row}", VIDEOS) for row in range(ROWS)]
    splits = {
        "train": world.videos("train", TRAIN),
        "val": world.videos("val", VAL),
        "test": [v for row in tests for v in row],
    }
    paths = written(arguments.work, world, splits)
    began = time.monotonic()
    checkpoint = arguments.checkpoint or trained(arguments.work, paths, seed=arguments.seed)
    retriever = MomentRetriever.load(checkpoint, device="cpu")
    training = time.monotonic() - began
    calibration = retriever.calibration
    hits: dict[str, list[bool]] = {"bins": [], "windows": [], "by saliency": [], "right window": []}
    seconds = {"bins": 0.0, "windows": 0.0, "by saliency": 0.0}
    videos = [in_a_row(row) for row in tests]
    for video in videos:
        for name, window in (("bins", "off"), ("windows", "auto"), ("by saliency", "auto")):
            retriever.calibration = None if name == "by saliency" else calibration
            began = time.monotonic()
            answers = retriever.locate(video.frames, video.queries, duration=video.duration, window=window)
            seconds[name] += time.monotonic() - began
            hits[name] += recall(answers, video.moments)
        hits["right window"] += right_window(retriever, video)
    scores = {name: 100 * float(np.mean(found)) for name, found in hits.items()}
    if calibration is not None:
        found = {kind: round(calibration.report[kind]["auroc"], 3) for kind in ("in_domain", "out_of_domain")}
        print(f"calibration: AUROC {found}, slopes {[round(slope, 2) for slope in calibration.answer.slopes]}")
    minutes = ", ".join(f"{video.duration / 60:.1f}" for video in videos)
    print(f"{len(videos)} videos of {minutes} minutes, {len(hits['bins'])} queries; trained in {training:.0f} s")
    print(f"training videos: longest {retriever.lengths.longest:g} s, median {retriever.lengths.median:g} s")
    for name, score in scores.items():
        print(f"R1@0.5, {name:<13} {score:6.2f}" + (f"   {seconds[name]:.1f} s" if name in seconds else ""))
    # If bins find nothing, compare with one query found.
    ratio = scores["windows"] / max(scores["bins"], 100 / len(hits["bins"]))
    print(f"windows / bins: {ratio:.1f} (at least {TARGET:g})")
    where = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads"
    print(f"{where}, load {os.getloadavg()[0]:.1f}; mesm {__version__}, torch {torch.__version__}", end="")
    print(f", Python {platform.python_version()}")
    return int(ratio < TARGET)


if __name__ == "__main__":
    sys.exit(main())
