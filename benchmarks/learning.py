"""Compare the learning curves on golden/learning with those of the published code.

    python benchmarks/learning.py charades600_tacos --shared ../shared --work /tmp/learning
    python benchmarks/learning.py charades600_tacos --set loss.absent=4

Generates the features, trains with three seeds, and prints the best mIoU of each seed and the mean, compared with the
published code. Exits with 1 if the mean is lower by more than the allowed difference.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from mesm_core.build import Paths, build_device
from mesm_core.config.load import load_config
from mesm_core.training.directory import prepare_directory
from mesm_core.training.events import EpochDone
from mesm_core.training.run import Run

SMALL_MODEL = (
    "model.video_dim=128",
    "model.hidden_dim=64",
    "model.heads=4",
    "model.dim_feedforward=128",
    "model.segment_sentence_layers=2",
    "train.lr=4e-4",
    "train.epochs=15",
    "train.batch_size=12",
    "train.select_on=paper",
)


@dataclass(frozen=True)
class Problem:
    """A folder of golden/learning: its preset, changed settings, text file, and the allowed difference in points."""

    preset: str
    settings: tuple[str, ...]
    text: str
    allowed: float


PROBLEMS = {
    "charades600_tacos": Problem("tacos", SMALL_MODEL, "glove/glove.subset.300d.txt.gz", 2.0),
    "charades600": Problem(
        "charades-vgg-glove",
        (*SMALL_MODEL, "dataset.clip_len=1", "dataset.max_frames=194"),
        "data/charades/annotations/glove.pkl",
        4.0,
    ),
}


def plant(shared: Path, out: Path) -> None:
    """Write the synthetic features, which all problems share."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        pickle_file = shared / "data" / "charades" / "annotations" / "glove.pkl"
        annotations = shared / "golden" / "learning" / "charades600" / "annotations"
        words = ["--dim", "128", "--fps", "1", "--noise", "0.7"]
        script = shared / "tools" / "plant_features.py"
        part = out.with_name(f"{os.getpid()}-{out.name}")
        command = [sys.executable, str(script), "charades", str(annotations), str(part), *words]
        subprocess.run([*command, "--glove-pkl", str(pickle_file)], check=True)
        part.replace(out)


def best_miou(
    problem: Problem, paths: Paths, folder: Path, *, settings: list[str], seed: int, device: torch.device
) -> float:
    """Train with one seed and return the best mIoU."""
    config = load_config(problem.preset, overrides=[*problem.settings, *settings, f"train.seed={seed}"])
    prepare_directory(folder, overwrite=True)
    scores = [0.0]
    for event in Run.open(config, paths, folder, device=device).train():
        if isinstance(event, EpochDone):
            (brief,) = event.record["eval"].values()
            scores.append(brief["MR-full-mIoU"])
            speed = event.record["queries_per_s"]
            shown = " ".join(f"{name} {brief[f'MR-full-{name}']:.2f}" for name in ("mIoU", "R1@0.5", "R1@0.7"))
            print(f"  seed {seed} epoch {event.record['epoch']:2} {shown} {speed:.0f} q/s", flush=True)
    return max(scores)


def main() -> int:
    """Run one problem and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem", choices=PROBLEMS)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/mesm-learning"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], help="change a setting, e.g. loss.absent=4")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2019, 2020, 2021])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    problem, shared, device = PROBLEMS[arguments.problem], arguments.shared, build_device(arguments.device)
    features = arguments.work / "features.hdf5"
    plant(shared, features)
    annotations = shared / "golden" / "learning" / arguments.problem / "annotations"
    paths = Paths(annotations, (features,), shared / problem.text)
    began = time.monotonic()
    ours = {}
    for seed in arguments.seeds:
        folder = arguments.work / "-".join([arguments.problem, arguments.precision, *arguments.set, str(seed)])
        settings = [f"train.precision={arguments.precision}", *arguments.set]
        ours[seed] = best_miou(problem, paths, folder, settings=settings, seed=seed, device=device)
    curves = json.loads((shared / "golden" / "learning" / "curves.json").read_text())[arguments.problem]
    theirs = {seed: max(epoch["MR-full-miou"] for epoch in epochs) for seed, epochs in curves.items()}
    mean, published = sum(ours.values()) / len(ours), sum(theirs.values()) / len(theirs)
    where = f"{platform.processor() or platform.machine()}, {device}, {arguments.threads} threads"
    print(f"{arguments.problem} on {where}, {', '.join([arguments.precision, *arguments.set])}")
    print(f"torch {torch.__version__}, python {platform.python_version()}, {time.monotonic() - began:.0f} s")
    print(f"best mIoU, ours:      {', '.join(f'{s}: {v:.2f}' for s, v in ours.items())}; mean {mean:.2f}")
    print(f"best mIoU, published: {', '.join(f'{s}: {v:.2f}' for s, v in theirs.items())}; mean {published:.2f}")
    print(f"difference {mean - published:+.2f}, allowed {-problem.allowed:+.2f}")
    return int(mean < published - problem.allowed)


if __name__ == "__main__":
    sys.exit(main())
