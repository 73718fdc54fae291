"""Measure the speed of the full-size TACoS preset with real annotations and synthetic features.

    python benchmarks/workload.py --shared ../shared --work /tmp/mesm-workload --precision fp32
    python benchmarks/workload.py --reference          # the plain modules of mesm_core.model
    python benchmarks/workload.py --profile            # time of a training step by operation
    python benchmarks/workload.py --attention-weights  # memory with stored weights, as in nn.MultiheadAttention

Trains on the first ten batches of seed 0, twice (the second time with memory that is allocated already), and evaluates
eight batches, with 512-d video features. Prints queries per second and products per query. A product is a float32
product of two 2048 x 2048 matrices. It is timed between the steps, since the speed of a shared machine changes from
minute to minute.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mesm_core.bench.measure import peak_memory, seconds_of_product
from mesm_core.build import Paths, build_criterion, build_device, build_features, build_model, build_split, build_text
from mesm_core.config.load import load_config
from mesm_core.data.dataset import MomentDataset
from mesm_core.data.sampling import Group
from mesm_core.fast.kernels import CpuKernels
from mesm_core.fast.packing import Packing
from mesm_core.model.mesm import Mesm
from mesm_core.training.loop import Step, train_epoch
from mesm_core.training.memory import keep_freed_memory
from mesm_core.training.objective import Objective
from mesm_core.training.optim import make_optimizer
from mesm_core.types import Batch

TRAINING, EVALUATION, PROFILED = 10, 8, 4
SETTINGS = ("model.video_dim=512", "train.seed=0")


def plant(shared: Path, out: Path) -> None:
    """Write the synthetic features."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        annotations = shared / "data" / "TACoS" / "annotations"
        part = out.with_name(f"{os.getpid()}-{out.name}")
        words = ["tacos", str(annotations), str(part), "--dim", "512", "--fps", "0.7"]
        subprocess.run([sys.executable, str(shared / "tools" / "plant_features.py"), *words], check=True)
        part.replace(out)


def attend_with_weights(_: CpuKernels, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Compute ``scaled_attention`` with float32 attention weights and dropout, stored for the backward pass."""
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1) + bias
    return F.dropout(scores.softmax(dim=-1), 0.1) @ value


def longest_batches(plan: list[list[Group]], dataset: MomentDataset) -> Callable[..., list[list[Group]]]:
    """Return a plan of the two batches with the most frames in their longest video."""

    def frames(batch: list[Group]) -> int:
        return max(dataset.features.length(dataset.queries[group[0]].vid) for group in batch)

    chosen = sorted(plan, key=frames)[-2:]
    return lambda **_: chosen


def main() -> None:
    """Run the workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/mesm-workload"))
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--attention-weights", action="store_true")
    parser.add_argument("--reference", action="store_true", help="use the plain modules (model.fast=false)")
    parser.add_argument("--longest", action="store_true", help="use the two batches with the longest videos")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.attention_weights:
        CpuKernels.scaled_attention = attend_with_weights
        Packing.runs_of = staticmethod(lambda mask: ())  # explicit weights need padded and projected inputs
    features = arguments.work / "tacos.hdf5"
    plant(arguments.shared, features)
    keep_freed_memory()
    device, shared = build_device(arguments.device), arguments.shared
    config = load_config("tacos", overrides=[*SETTINGS, f"model.fast={str(not arguments.reference).lower()}"])
    paths = Paths(shared / "data/TACoS/annotations", (features,), shared / "glove/glove.subset.300d.txt.gz")
    began = time.perf_counter()
    text, store = build_text(config, paths, device=device), build_features(config, paths)
    train, val = (build_split(config, paths, split, text, store).dataset for split in ("train", "val"))
    text.prepare(query.sentence for dataset in (train, val) for query in dataset.queries)
    model = build_model(config.model, classes=text.classes, max_words=config.dataset.max_words).to(device)
    criterion = build_criterion(config.loss, config.model)
    optimizer = make_optimizer(model, lr=config.train.lr, weight_decay=config.train.weight_decay)
    list(store.read_ahead(dict.fromkeys(query.vid for data in (train, val) for query in data.queries)))
    start_up = time.perf_counter() - began
    plan = train.plan(seed=0, epoch=0, batch_size=config.train.batch_size)
    train.plan = longest_batches(plan, train) if arguments.longest else lambda **_: plan[:TRAINING]

    def epoch() -> Iterator[Step]:
        return train_epoch(
            Objective(model, criterion), optimizer, train, epoch=0, seed=0, batch_size=config.train.batch_size,
            grad_clip=config.train.grad_clip, device=device, precision=arguments.precision,
        )  # fmt: skip

    if arguments.profile:
        for _ in epoch():
            pass
        steps = epoch()
        next(steps)
        with torch.profiler.profile() as profile:
            list(itertools.islice(steps, PROFILED))
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=36))
        return
    print(f"torch {torch.__version__}, python {platform.python_version()}, {device}, {torch.get_num_threads()} threads")
    print(f"start-up {start_up:.2f} s, {arguments.precision}")
    for name in ("training", "again"):
        report(name, (step.queries for step in epoch()), device)
    model.eval()
    batches = val.batches(val.eval_plan(batch_size=config.eval.batch_size)[:EVALUATION])
    report("evaluation", (answer(model, batch, device) for batch in batches), device)
    print(f"peak memory {peak_memory(device) / 2**20:.0f} MB")


@torch.inference_mode()
def answer(model: Mesm, batch: Batch, device: torch.device) -> int:
    """Predict a batch and return its number of queries."""
    model(batch.to(device).inputs)
    return len(batch.queries)


def report(name: str, work: Iterator[int], device: torch.device) -> None:
    """Print the speed of work that yields numbers of completed queries. A product is timed after each of them."""
    seconds, processor, queries, products = 0.0, 0.0, 0, [seconds_of_product(device, repeats=3)]
    began, busy = time.perf_counter(), time.process_time()
    for done in work:
        seconds, queries = seconds + time.perf_counter() - began, queries + done
        processor += time.process_time() - busy
        products.append(seconds_of_product(device, repeats=1, warm_up=1))
        began, busy = time.perf_counter(), time.process_time()
    product = statistics.mean(products)
    print(
        f"{name:10} {queries / seconds:6.1f} queries/s, {seconds / queries / product:.2f} products per query of "
        f"{1e3 * product:.1f} ms, {1e3 * processor / queries:.1f} ms of CPU time per query"
    )


if __name__ == "__main__":
    main()
