"""``mesm bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mesm_cli import options, render

Steps = Annotated[int, typer.Option("--steps", min=1, help="Number of batches to time, after a warm-up.")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Number of CPU threads. Default: PyTorch's.", show_default=False)
]
Compare = Annotated[
    Path | None,
    typer.Option("--compare", help="The --json output of an earlier run, to compare with.", show_default=False),
]
FIGURES = (
    ("training, queries/s", "training", "queries_per_s"),
    ("training, products/query", "training", "products_per_query"),
    ("training, useful GFLOP/s", "training", "useful_gflops"),
    ("training, share of the product's rate", "training", "useful_share_of_product_rate"),
    ("training, share waiting for data", "training", "waiting_for_data"),
    ("evaluation, queries/s", "evaluation", "queries_per_s"),
    ("evaluation, products/query", "evaluation", "products_per_query"),
    ("evaluation, share of the product's rate", "evaluation", "useful_share_of_product_rate"),
    ("prediction, model ms", "prediction", "model_ms"),
    ("prediction, answer ms", "prediction", "answer_ms"),
)


def bench(
    dataset: Annotated[str, typer.Option("--dataset", help="Name of the dataset's preset.")] = "tacos",
    config: options.ConfigFile = None,
    set_: options.Set = None,
    precision: options.Precision = None,
    compile_: options.Compile = False,
    device: options.Device = "auto",
    threads: Threads = None,
    steps: Steps = 10,
    compare: Compare = None,
    json_: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure the speed of training, evaluation and prediction on generated data of the dataset's size.

    Speeds are also given in products, which can be compared between machines: one product is a float32 product of two
    2048 × 2048 matrices on the same device. Useful operations are those on valid frames and words. Prediction is one
    query about a video of 150 seconds, with one thread.

    Example:

      mesm bench --dataset tacos --set model.video_dim=512 --json > before.json
    """
    import torch

    from mesm_core.bench.measure import Stage
    from mesm_core.bench.measure import bench as measure
    from mesm_core.build import build_device
    from mesm_core.config.load import load_config

    earlier = None if compare is None else _read(compare)
    overrides = [*(set_ or []), *([f"train.precision={precision}"] if precision else [])]
    settings = load_config(dataset, file=config, overrides=[*overrides, f"train.compile={str(compile_).lower()}"])
    where = build_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    result: dict[str, Any] = {}
    with render.progress("Measuring", None) as advance:
        for event in measure(settings, device=where, steps=steps):
            if isinstance(event, Stage):
                advance(1, event.name)
            else:
                result = event
    if json_:
        render.data(result | ({} if earlier is None else {"compared_with": earlier}))
        return
    parts = f"{result['threads']} threads, {result['precision']}{', compiled' if result['compile'] else ''}"
    render.say(f"{result['dataset']} on {result['device']}, {parts}, torch {result['versions']['torch']}")
    product = 1e3 * result["training"]["product_seconds"]
    render.say(f"One product takes {product:.1f} ms; peak memory {result['peak_memory_mb']} MB\n")
    rows = [[name, result[part][key], *_against(earlier, part, key, result)] for name, part, key in FIGURES]
    render.table(["", "now", *(["then", "now/then"] if earlier else [])], rows)


def _against(earlier: dict[str, Any] | None, part: str, key: str, now: dict[str, Any]) -> list[str]:
    if earlier is None:
        return []
    then = earlier[part][key]
    return [str(then), f"{now[part][key] / then:.2f}" if then else "–"]


def _read(path: Path) -> dict[str, Any]:
    from mesm_core.data.annotations import is_number
    from mesm_core.errors import DataError
    from mesm_core.inputs import read_json

    hint = "Measure again: mesm bench --json > FILE"
    content = read_json(path, what="measurement", hint=hint)
    parts = [content.get(part) if isinstance(content, dict) else None for _, part, _ in FIGURES]
    if all(isinstance(p, dict) and is_number(p.get(key)) for p, (_, _, key) in zip(parts, FIGURES, strict=True)):
        return dict(content)
    raise DataError(f"{path} is not the output of `mesm bench --json`.", hint=hint)
