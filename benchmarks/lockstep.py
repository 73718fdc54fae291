"""Compare the speed of checkouts of mesm, alternating after each step, so that load on the machine affects all equally.

    python benchmarks/lockstep.py --shared ../shared --work /tmp/mesm-workload FOLDER [FOLDER+reference ...]

Each folder is a checkout; ``+reference`` runs it with ``model.fast=false``. One process for each trains on the first
batches of ``workload.py`` and evaluates, in several rounds. The processes alternate after each batch. Prints the ratios
of wall time and CPU time to the first checkout, as medians over batches, and the peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

TRAINING, EVALUATION = 10, 8
REFERENCE = "+reference"


def work(shared: Path, folder: Path, *, reference: bool, rounds: int) -> Iterator[tuple[str, int]]:
    """Yield the kind and the number of queries after each batch."""
    import torch

    from mesm_core.build import Paths, build_criterion, build_features, build_model, build_split, build_text
    from mesm_core.config.load import load_config
    from mesm_core.training.loop import train_epoch
    from mesm_core.training.memory import keep_freed_memory
    from mesm_core.training.optim import make_optimizer

    keep_freed_memory()
    device, plain = torch.device("cpu"), ["model.fast=false"] if reference else []
    config = load_config("tacos", overrides=["model.video_dim=512", "train.seed=0", *plain])
    paths = Paths(shared / "data/TACoS/annotations", (folder,), shared / "glove/glove.subset.300d.txt.gz")
    text, store = build_text(config, paths, device=device), build_features(config, paths)
    train, val = (build_split(config, paths, split, text, store).dataset for split in ("train", "val"))
    text.prepare(query.sentence for data in (train, val) for query in data.queries)
    torch.manual_seed(0)
    model = build_model(config.model, classes=text.classes, max_words=config.dataset.max_words)
    criterion = build_criterion(config.loss, config.model)
    optimizer = make_optimizer(model, lr=config.train.lr, weight_decay=config.train.weight_decay)
    list(store.read_ahead(dict.fromkeys(query.vid for data in (train, val) for query in data.queries)))
    try:
        from mesm_core.training.objective import Objective

        trained: tuple[object, ...] = (Objective(model, criterion),)
    except ImportError:  # older checkouts
        trained = (model, criterion)
    size, clip = config.train.batch_size, config.train.grad_clip
    plan = train.plan(seed=0, epoch=0, batch_size=size)[:TRAINING]
    train.plan = lambda **_: plan
    held = val.eval_plan(batch_size=config.eval.batch_size)[:EVALUATION]
    yield "ready", 0
    for number in range(rounds):
        kind = "first steps" if number == 0 else "training"
        for step in train_epoch(
            *trained, optimizer, train, epoch=0, seed=0, batch_size=size, grad_clip=clip, device=device
        ):
            yield kind, step.queries
        model.eval()
        for batch in val.batches(held):
            with torch.inference_mode():
                model(batch.inputs)
            yield "evaluation", len(batch.queries)


def run_worker(arguments: argparse.Namespace) -> None:
    """Compute one batch for each line of standard input, and print its time and memory."""
    steps = work(arguments.shared, arguments.features, reference=arguments.reference, rounds=arguments.rounds)
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        kind, queries = next(steps, ("end", 0))
        spent = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"kind": kind, "queries": queries, "memory": memory, **spent}), flush=True)


def compare(arguments: argparse.Namespace) -> None:
    """Start a process for each checkout, alternate between them, and print the ratios."""
    workers = []
    for name in arguments.checkouts:
        folder = Path(name.removesuffix(REFERENCE)).resolve()
        command = [sys.executable, __file__, "--worker", "--shared", arguments.shared, "--features", arguments.features]
        command += ["--rounds", str(arguments.rounds), *(["--reference"] if name.endswith(REFERENCE) else [])]
        environment = os.environ | {"PYTHONPATH": str(folder), "GOMP_SPINCOUNT": "1000"}
        workers.append(
            subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
    done: dict[str, list[list[dict[str, float]]]] = {}
    memory, kind = [0.0] * len(workers), ""
    while kind != "end":
        turn = []
        for worker in workers:
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
            turn.append(json.loads(worker.stdout.readline()))
        kind = turn[0]["kind"]
        memory = [spent["memory"] for spent in turn]
        done.setdefault(kind, []).append(turn)
        print(kind, *(f"{x['wall']:.2f} ({x['processor']:.2f})" for x in turn), file=sys.stderr, flush=True)
    for kind in (kind for kind in done if kind not in {"ready", "end"}):
        for clock in ("wall", "processor"):
            each = [[turn[number][clock] for turn in done[kind]] for number in range(len(workers))]
            queries = sum(turn[0]["queries"] for turn in done[kind])
            for name, seconds in zip(arguments.checkouts, each, strict=True):
                medians = statistics.median(seconds) / statistics.median(each[0])
                ratios = statistics.median(b / a for a, b in zip(each[0], seconds, strict=True))
                print(
                    f"{kind:12} {clock:10} {1e3 * sum(seconds) / queries:7.1f} ms per query, ratio of medians "
                    f"{medians:.3f}, median of ratios {ratios:.3f}  {name}"
                )
    for name, most in zip(arguments.checkouts, memory, strict=True):
        print(f"peak memory {most:.0f} MB  {name}")


def main() -> None:
    """Run the comparison, or one of its workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", help="folders; append +reference to use the plain modules")
    parser.add_argument("--shared", default="../shared", type=lambda path: Path(path).resolve())
    parser.add_argument(
        "--work", default="/tmp/mesm-workload", type=Path, help="folder in which workload.py wrote tacos.hdf5"
    )
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--worker", action="store_true")
    parser.add_argument("--reference", action="store_true")
    arguments = parser.parse_args()
    arguments.features = arguments.features or arguments.work / "tacos.hdf5"
    run_worker(arguments) if arguments.worker else compare(arguments)


if __name__ == "__main__":
    main()
