"""Count the kernel launches and copies of a training step and an evaluation batch on CUDA, without a GPU.

    python benchmarks/launches.py --shared ../shared
    python benchmarks/launches.py --presets tacos --precisions tf32 --operators

The tensors are fake ones of ``shared/tools/fake_cuda``: nothing is computed, and the launches of an operator are an
estimate. The batch is the first of generated data of the real size; the features are narrower, which changes no count.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

NARROW = ("model.video_dim=24", "model.text_dim=20", "text.vocab_size=30")
PARTS = ("forward", "losses", "backward", "clipping", "optimizer", "evaluation")


def main() -> None:
    """Print one line of counts for every preset and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--presets", nargs="+", default=["tacos", "charades"])
    parser.add_argument("--precisions", nargs="+", default=["tf32", "bf16"], choices=["fp32", "tf32", "bf16"])
    parser.add_argument("--reference", action="store_true", help="use the plain modules (model.fast=false)")
    parser.add_argument("--operators", action="store_true", help="also print the operators of every part")
    arguments = parser.parse_args()
    sys.path.insert(0, str((arguments.shared / "tools" / "fake_cuda").resolve()))
    import fake_cuda  # before torch

    mode = fake_cuda.mode()  # one for all: what is kept between steps is of its tensors
    print("preset    precision  step  " + "  ".join(PARTS) + "  copies of a batch, of an evaluation batch")
    for preset in arguments.presets:
        for precision in arguments.precisions:
            counts, copies = count(fake_cuda, mode, preset, precision, fast=not arguments.reference)
            totals = {part: sum(counts[part].values()) for part in PARTS}
            step = sum(totals.values()) - totals["evaluation"]
            cells = "  ".join(f"{totals[part]:>{len(part)}}" for part in PARTS)
            print(f"{preset:9} {precision:9} {step:5}  {cells}  {copies['training']}, {copies['evaluation']}")
            for part in PARTS if arguments.operators else ():
                print(f"  {part}: " + ", ".join(f"{name} {n}" for name, n in counts[part].most_common()))


def count(
    fake_cuda: Any, mode: Any, preset: str, precision: str, *, fast: bool
) -> tuple[dict[str, Counter[str]], dict[str, int]]:
    """Return the launches of each part by operator, and the copies from the host."""
    import torch

    from mesm_core.bench.sizes import invented_dataset
    from mesm_core.build import build_criterion, build_model
    from mesm_core.config.load import load_config
    from mesm_core.training.optim import clip_gradients, make_optimizer
    from mesm_core.training.precision import use_precision
    from mesm_core.types import Batch

    config = load_config(preset, overrides=[*NARROW, f"model.fast={str(fast).lower()}"])
    data, text = invented_dataset(config)
    groups = data.plan(seed=0, epoch=0, batch_size=config.train.batch_size)[0]
    device = torch.device("cuda", 0)

    def pack(size: int) -> torch.Tensor:
        """Return memory for a batch that is packed as training packs it, but not pinned."""
        return torch.empty(size, dtype=torch.uint8)

    def faked(batch: Batch) -> Batch:
        return replace(batch._moved(mode.from_tensor), buffer=mode.from_tensor(batch.buffer))

    train = faked(data.train_batch(groups, seed=0, epoch=0, index=0, pack=pack))
    held = faked(next(iter(data.batches(data.eval_plan(batch_size=config.eval.batch_size)[:1], pack=pack))))
    counts: dict[str, Counter[str]] = {}
    copies: dict[str, int] = {}

    @contextmanager
    def part(name: str, copied: str = "") -> Iterator[None]:
        with fake_cuda.Watch() as watch:
            yield
        counts[name] = watch.launches
        if copied:
            copies[copied] = len(watch.crossings)

    with mode:
        with device:
            model = build_model(config.model, classes=text.classes, max_words=config.dataset.max_words)
        criterion = build_criterion(config.loss, config.model)
        optimizer = make_optimizer(model, lr=1e-4, weight_decay=1e-4)
        for _ in range(2):  # the first step makes what is kept on the device
            optimizer.zero_grad(set_to_none=True)
            with use_precision(model, device, precision) as autocast:
                with part("forward", copied="training"):
                    batch = train.to(device)
                    with autocast:
                        output = model.train()(batch.inputs, batch.targets)
                with part("losses"):
                    loss = criterion.total(criterion(output.float(), batch.inputs, batch.targets))
                with part("backward"):
                    loss.backward()
            with part("clipping"):
                clip_gradients(optimizer, config.train.grad_clip)
            with part("optimizer"):
                optimizer.step()
        model.eval()
        for _ in range(2):
            with part("evaluation", copied="evaluation"), torch.no_grad():
                model(held.to(device).inputs)
    return counts, copies


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # torch's clean-up looks for a real driver
